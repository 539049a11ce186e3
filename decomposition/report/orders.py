"""Every damping protocol and every feasible order of the steps: does the verdict survive?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import xarray as xr

from decomposition.names import STEPS
from decomposition.report.interval import Interval
from decomposition.report.names import (
    STEP_LABELS,
    protocol_label,
)
from decomposition.report.result import Result, interval, labels
from decomposition.report.wording import joined, some

MEAN = "mean"
"""Name of the row of the Shapley value, the mean over the orders."""


@dataclass(frozen=True)
class Reading:
    """The steps' drops and shares under one protocol along one order."""

    protocol: str
    order: str
    """The order as the result names it, or MEAN."""
    drops: dict[str, Interval]
    shares: dict[str, Interval]
    """Unknown where the total is within noise."""

    @property
    def defined(self) -> bool:
        """Whether the shares are."""
        return any(share.known for share in self.shares.values())

    @property
    def largest(self) -> str | None:
        """The step with the largest estimated drop; None where no estimate is a loss."""
        known = {step: drop.estimate for step, drop in self.drops.items() if drop.known}
        top = max(known, key=lambda step: known[step], default=None)
        return top if top is not None and known[top] > 0 else None


def order_names(result: Result) -> dict[str, str]:
    """Order as the result names it → "order 1", "order 2", … in the result's sequence."""
    drop = result.array("/shares/orders", "drop_by_order")
    found = labels(drop, "order") if drop is not None else []
    return {order: f"order {number}" for number, order in enumerate(found, start=1)}


def readings(result: Result, metric: str = "lds") -> list[Reading]:
    """Every protocol × order, the mean over orders last in each protocol; unknown ones left out."""
    orders, mean = result.group("/shares/orders"), result.group("/shares/shapley")
    if orders is None or not {"drop_by_order", "share_by_order"} <= set(orders.data_vars):
        return []
    if metric not in labels(orders["drop_by_order"], "metric"):
        return []
    found = []
    known = labels(orders["drop_by_order"], "protocol")
    for protocol in (p for p in result.protocols if p in known):
        place = {"metric": metric, "protocol": protocol}
        for order in order_names(result):
            drops = _steps(orders["drop_by_order"], **place, order=order)
            shares = _steps(orders["share_by_order"], **place, order=order)
            found.append(Reading(protocol, order, drops, shares))
        if mean is not None and {"shapley", "shapley_drop"} <= set(mean.data_vars):
            shares = _steps(mean["shapley"], **place)
            found.append(Reading(protocol, MEAN, _steps(mean["shapley_drop"], **place), shares))
    return [r for r in found if any(drop.known for drop in r.drops.values())]


def survival(result: Result, metric: str = "lds") -> str:
    """Which step has the largest estimate, by protocol and order; "" if unknown."""
    by_protocol = _largest(result, metric)
    if not by_protocol:
        return ""
    by_step: dict[str, list[str]] = {}
    for protocol, largest in by_protocol.items():
        count = Counter(largest)
        orders = f" in {{}} of {len(largest)} orders" if len(count) > 1 else ""
        told = joined([_named(step) + orders.format(n) for step, n in count.most_common()])
        by_step.setdefault(told, []).append(protocol_label(protocol))
    unresolved = (
        ""
        if any(r.defined for r in readings(result, metric))
        else " The total is within noise under all of them, so this order of the estimates is open."
    )
    whole = {step for largest in by_protocol.values() for step in largest}
    if len(whole) == 1 and None not in whole:
        return (
            "Under every damping protocol and along every order of the steps "
            f"{next(iter(by_step))} has the largest estimated loss.{unresolved}"
        )
    parts = [f"{told} under {some(names)}" for told, names in by_step.items()]
    same = all(len(set(largest)) == 1 for largest in by_protocol.values())
    every = ", along every order of the steps" if same else ""
    return f"The largest estimated loss{every}: {'; '.join(parts)}.{unresolved}"


def _largest(result: Result, metric: str) -> dict[str, list[str | None]]:
    """Protocol → the step with the largest estimate along every order."""
    found: dict[str, list[str | None]] = {}
    for reading in readings(result, metric):
        if reading.order != MEAN:
            found.setdefault(reading.protocol, []).append(reading.largest)
    return found


def order_matters(result: Result, metric: str = "lds") -> str:
    """The end of a sentence: whether another order of the steps has another largest one."""
    by_protocol = _largest(result, metric)
    changed = [p for p, largest in by_protocol.items() if len(set(largest)) > 1]
    if not by_protocol:
        return ""
    if not changed:
        return ", whatever the order of the steps"
    names = some([protocol_label(p) for p in changed])
    return f"; another order of the steps changes the estimates under {names}"


def _steps(array: xr.DataArray, **place: str) -> dict[str, Interval]:
    return {s: interval(array, step=s, **place) for s in STEPS if s in labels(array, "step")}


def _named(step: str | None) -> str:
    return "no step's loss" if step is None else STEP_LABELS.get(step, step)
