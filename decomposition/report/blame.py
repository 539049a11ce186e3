"""Which step costs most under one metric and damping protocol, and whether that is resolved.

Where the result records a verdict, from paired resamples, that one is told. Without it a step is
called the largest only where the lower end of its interval lies above the upper end of every
other step's: marginal intervals make this conservative. Anything else is "not resolved".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from decomposition.report.study import (
    PROTOCOLS,
    SHARE_METRICS,
    Interval,
    Study,
    interval,
    labels,
)
from decomposition.results.schema import STEPS

UNDAMPED = "frobenius_squared"
"""The metric that no damping enters."""


@dataclass(frozen=True)
class Blame:
    """Which step costs most under one metric and protocol."""

    metric: str
    protocol: str
    total: Interval
    drops: dict[str, Interval]
    shares: dict[str, Interval]
    defined: bool
    recorded: dict[str, Any] = field(default_factory=dict)
    """The verdict of the study itself, where the result holds one."""

    @property
    def known(self) -> bool:
        """Whether the total was measured at all."""
        return self.total.known

    @property
    def largest(self) -> str | None:
        """The step that the result records as largest, or whose drop lies above all others'.

        None if that is not resolved.
        """
        if self.recorded:
            return self.recorded["candidate"] if self.recorded["resolved"] else None
        known = {step: drop for step, drop in self.drops.items() if drop.known}
        if not self.defined or not known:
            return None
        top = max(known, key=lambda step: known[step].estimate)
        rest = [drop.upper for step, drop in known.items() if step != top]
        return top if known[top].lower > max([0.0, *rest]) else None

    @property
    def leading(self) -> list[str]:
        """The step with the largest estimate and all that its interval does not exclude."""
        known = {step: drop for step, drop in self.drops.items() if drop.known}
        if not known:
            return []
        top = max(known, key=lambda step: known[step].estimate)
        near = [s for s in known if s == top or known[s].upper >= known[top].lower]
        return sorted(near, key=lambda step: -known[step].estimate)


def blame(study: Study, metric: str, protocol: str) -> Blame | None:
    """The drops and shares of one metric and protocol; None if the result lacks them."""
    data = study.group("/shares")
    if data is None or not {"drop", "total"} <= set(data.data_vars):
        return None
    if metric not in labels(data["drop"], "metric"):
        return None
    if protocol not in labels(data["drop"], "protocol"):
        return None
    where = {"metric": metric, "protocol": protocol}
    steps = [s for s in STEPS if s in labels(data["drop"], "step")]
    total = interval(data["total"], **where)
    defined = int(data["defined"].sel(where)) == 1 if "defined" in data else True
    drops = {s: interval(data["drop"], step=s, **where) for s in steps}
    shares = drops
    if "share" in data:
        shares = {s: interval(data["share"], step=s, **where) for s in steps}
    recorded = _recorded(data, protocol) if metric == "lds" else {}
    return Blame(metric, protocol, total, drops, shares, defined and total.known, recorded)


def _recorded(data: xr.Dataset, protocol: str) -> dict[str, Any]:
    verdicts = json.loads(data.attrs.get("verdict", "{}"))
    return verdicts.get(protocol, {})


def protocols(study: Study) -> list[str]:
    """The damping protocols of the result, those known first and in their usual order."""
    drop = study.array("/shares", "drop")
    found = labels(drop, "protocol") if drop is not None else []
    return [p for p in PROTOCOLS if p in found] + [p for p in found if p not in PROTOCOLS]


def cases(study: Study) -> list[tuple[str, str]]:
    """Every (metric, protocol) of the shares; the Frobenius error knows no damping: one only."""
    drop = study.array("/shares", "drop")
    if drop is None:
        return []
    metrics = [m for m in SHARE_METRICS if m in labels(drop, "metric")]
    metrics += [m for m in labels(drop, "metric") if m not in metrics]
    pairs = [(m, p) for m in metrics for p in protocols(study)]
    first = protocols(study)[:1]
    return [(m, p) for m, p in pairs if m != UNDAMPED or [p] == first]
