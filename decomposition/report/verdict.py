"""The answer in words: what is lost, which step loses it, and whether the protocol matters.

Where the result records a verdict, from paired resamples, that one is told. Without it a step is
called the largest only where the lower end of its interval lies above the upper end of every
other step's: marginal intervals make this conservative. Anything else is "not resolved".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from decomposition.names import BASELINES, STEPS
from decomposition.report.interval import Interval
from decomposition.report.names import (
    STEP_LABELS,
    STEP_MEANINGS,
    protocol_label,
    rung_label,
)
from decomposition.report.orders import order_matters
from decomposition.report.result import Result, interval, labels
from decomposition.report.wording import fixed, joined, number, percent, some, span

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
        """Whether the total was measured at all, or its division at least."""
        return self.total.known or any(share.known for share in self.shares.values())

    @property
    def _sizes(self) -> dict[str, Interval]:
        """What the steps are compared by: drops, or shares where no drop was kept."""
        drops = {step: drop for step, drop in self.drops.items() if drop.known}
        return drops or {step: share for step, share in self.shares.items() if share.known}

    @property
    def largest(self) -> str | None:
        """The step that the result records as largest, or whose drop lies above all others'.

        None if that is not resolved.
        """
        if self.recorded:
            return self.recorded["candidate"] if self.recorded["resolved"] else None
        known = self._sizes
        if not self.defined or not known:
            return None
        top = max(known, key=lambda step: known[step].estimate)
        rest = [drop.upper for step, drop in known.items() if step != top]
        return top if known[top].lower > max([0.0, *rest]) else None

    @property
    def leading(self) -> list[str]:
        """The step with the largest estimate and all that its interval does not exclude."""
        known = self._sizes
        if not known:
            return []
        top = max(known, key=lambda step: known[step].estimate)
        near = [s for s in known if s == top or known[s].upper >= known[top].lower]
        return sorted(near, key=lambda step: -known[step].estimate)


def blame(result: Result, metric: str, protocol: str) -> Blame | None:
    """The drops and shares of one metric and protocol; None if the result lacks them."""
    data = result.group("/shares")
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
    recorded = _recorded(result, data, protocol) if metric == "lds" else {}
    found = Blame(metric, protocol, total, drops, shares, defined, recorded)
    return found if found.known else replace(found, defined=False)


def _recorded(result: Result, data: xr.Dataset, protocol: str) -> dict[str, Any]:
    verdicts = json.loads(data.attrs.get("verdict", "{}"))
    if result.cell is not None:  # of many cells: cell → protocol → verdict
        verdicts = verdicts.get(str(result.cell), {})
    return verdicts.get(protocol, {})


def sentences(result: Result) -> list[str]:
    """Three sentences: the loss, the step to blame, and what damping and order change."""
    found = [b for p in result.protocols if (b := blame(result, "lds", p)) and b.known]
    if not found:
        return [_without_attribution(result)]
    return [_loss(result, found[0]), _step(found[0]), _survival(result, found)]


def under(protocol: str) -> str:
    """``under equal λ``; of tuned damping what it is."""
    if protocol == "tuned":
        return "with every rung at its own best damping λ"
    return f"under {protocol_label(protocol)}"


def _loss(result: Result, first: Blame) -> str:
    level = result.array("/shares", "level")
    where = ""
    if level is not None and {"hessian", "kfac"} <= set(labels(level, "rung")):
        ends = [interval(level, protocol=first.protocol, rung=r) for r in ("hessian", "kfac")]
        where = f", from {fixed(ends[0].estimate)} to {fixed(ends[1].estimate)}"
    total, how = first.total, f"{under(first.protocol)}{where}"
    if not first.defined:
        return (
            "What replacing the exact Hessian by K-FAC costs in attribution quality (LDS) is not "
            f"resolved from zero: {span(total)} {how}."
        )
    if total.estimate < 0:
        gain = Interval(-total.upper, -total.estimate, -total.lower)
        return f"Replacing the exact Hessian by K-FAC raises the LDS by {span(gain)} {how}."
    return (
        f"Replacing the exact Hessian by K-FAC costs {span(total)} of attribution quality (LDS) "
        f"{how}."
    )


def _step(first: Blame) -> str:
    if not first.defined:
        return "Shares of the steps are therefore undefined, and no step is to blame at this size."
    if first.total.estimate < 0:
        return "As the whole is a gain, no step is to blame; the table of shares shows each one."
    share = first.shares
    if first.largest is not None:
        return (
            f"The largest step is {_named(first.largest)} ({STEP_MEANINGS[first.largest]}), "
            f"{percent(share[first.largest])} of it{_probability(first)}."
        )
    names = [f"{_named(s)} ({percent(share[s])})" for s in first.leading]
    head = "Which step is largest is not resolved at this size"
    tail = f"{_probability(first)}{_more(first)}."
    if len(names) == 1:
        return f"{head}: {names[0]} leads, but is not clear of the others or of zero{tail}"
    return f"{head}: {joined(names)} overlap{tail}"


def _probability(first: Blame) -> str:
    chance = first.recorded.get("probability")
    if chance is None or not math.isfinite(chance):
        return ""
    told = "> 0.99" if chance > 0.99 else f"= {chance:.2f}"
    who = "" if first.largest is not None else f" that {_named(first.recorded['candidate'])} is it"
    return f" (P {told}{who})"


def _more(first: Blame) -> str:
    if not first.recorded:
        return ""
    masks = first.recorded.get("more_masks")
    if masks is None:
        return "; more masks alone would not resolve it"
    return f"; about {masks:,} more masks would resolve it"


def _survival(result: Result, found: list[Blame]) -> str:
    order = order_matters(result)
    if len(found) == 1:
        return (
            "Only one damping protocol was measured, so whether this holds under another is "
            f"open{order}."
        )
    if not any(b.defined for b in found):
        names = some([protocol_label(b.protocol) for b in found[1:]])
        return f"Under {names} the loss is within noise too."
    outcomes: dict[str, list[str]] = {}
    for other in found[1:]:
        if not other.defined:
            outcome = "the loss is within noise"
        elif other.largest is None:
            outcome = "the largest step is not resolved"
        else:
            again = "again " if other.largest == found[0].largest else ""
            outcome = f"it is {again}{_named(other.largest)}"
        outcomes.setdefault(outcome, []).append(protocol_label(other.protocol))
    parts = [f"under {some(names)} {outcome}" for outcome, names in outcomes.items()]
    largest = {b.largest for b in found}
    if None in largest:
        head = "The verdict is not settled across dampings"
    elif len(largest) == 1:
        head = "The verdict survives a change of damping"
    else:
        head = "The verdict depends on the damping"
    return f"{head}: {'; '.join(parts)}{order}."


def spectral_sentence(result: Result) -> str:
    """Which step adds most to the squared Frobenius error."""
    first = result.protocols
    found = blame(result, UNDAMPED, first[0]) if first else None
    if found is None or not found.known:
        return "How the spectral error divides over the steps was not measured."
    if not found.defined or found.largest is None:
        return "In squared Frobenius error no step is the largest."
    share = percent(found.shares[found.largest])
    return f"In squared Frobenius error the largest step is {_named(found.largest)}, {share}."


def _without_attribution(result: Result) -> str:
    if _without_truth(result):
        return _agreeing(result)
    if result.group("/attribution") is None:
        return (
            "Attribution quality was not measured (no models were retrained), so what the steps "
            "cost is not known."
        )
    return "The LDS was measured, but not for both ends of the chain, so no loss can be divided."


def _without_truth(result: Result) -> bool:
    """Whether rungs were compared with each other, for want of retrained models."""
    return result.array("/attribution", "lds_mean") is None and (
        result.array("/attribution", "agreement") is not None
        or result.group("/spectral_density") is not None
    )


def _named(step: str) -> str:
    return STEP_LABELS.get(step, step)


def _agreeing(result: Result) -> str:
    """What is known of scores without models retrained for this result."""
    said = "Attribution quality was not measured: no retrained models are at hand."
    agreement = result.array("/attribution", "agreement")
    if agreement is None:
        return said
    found = agreement.sel(agreement_metric="spearman", rung="kfac").dropna("damping")
    if not found.size:
        return said
    parts = [f"{float(one):.2f} at λ = {number(float(one['damping']))}" for one in found]
    return (
        f"{said} K-FAC's influence scores agree with those of the best rung that could be solved "
        f"to a rank correlation of {joined(parts)}."
    )


def held_back(result: Result) -> dict[str, float]:
    """Rung → smallest λ at which it was solved, if its LDS is best there and smaller ones exist."""
    mean, edge = result.array("/attribution", "lds_mean"), result.array("/attribution", "edge")
    best = result.array("/attribution", "best_damping")
    if mean is None or edge is None or best is None:
        return {}
    grid = mean["damping"].values
    found = {}
    for rung in (
        r for r in labels(edge, "rung") if r not in BASELINES and r in labels(mean, "rung")
    ):
        known = np.isfinite(mean.sel(rung=rung, ci_bound="estimate").values)
        if not known.any() or known[0] or int(edge.sel(rung=rung)) != 1:
            continue
        first = int(known.argmax())
        if int(np.abs(np.log(grid / float(best.sel(rung=rung)))).argmin()) == first:
            found[rung] = float(grid[first])
    return found


def held_back_sentences(result: Result) -> list[str]:
    """What a reader of tuned levels must know; empty where every optimum could be reached."""
    found = held_back(result)
    if not found:
        return []
    where = joined(
        [f"{rung_label(rung)} only from {number(value)} on" for rung, value in found.items()]
    )
    it = "it is" if len(found) == 1 else "each of them is"
    return [
        f"Not every λ could be solved: {where}, and {it} best right there. At smaller λ, where "
        "other rungs may be best, it might do better. Under tuned λ it is held back by its solver, "
        "not by its curvature: read the steps at equal λ, or give it more memory (--memory)."
    ]
