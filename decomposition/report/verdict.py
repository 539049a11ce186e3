"""The answer in words: what is lost, which step loses it, and whether the protocol matters.

A step is called the largest only where the lower end of its interval lies above the upper end of
every other step's: marginal intervals make this conservative. Anything else is "not resolved".
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.report.study import (
    PROTOCOLS,
    SHARE_METRICS,
    STEP_LABELS,
    Interval,
    Study,
    interval,
    labels,
)
from decomposition.report.wording import joined, percent, span
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

    @property
    def known(self) -> bool:
        """Whether the total was measured at all."""
        return self.total.known

    @property
    def largest(self) -> str | None:
        """The step whose drop lies above all others', or None if that is not resolved."""
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
    return Blame(metric, protocol, total, drops, shares, defined and total.known)


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


def sentences(study: Study) -> list[str]:
    """Three sentences: the loss, the step to blame, and what the protocol changes."""
    found = [b for p in protocols(study) if (b := blame(study, "lds", p)) and b.known]
    if not found:
        return [_without_attribution(study)]
    return [_loss(study, found[0]), _step(found[0]), _survival(found)]


def _loss(study: Study, first: Blame) -> str:
    level = study.array("/shares", "level")
    under = f"under {PROTOCOLS.get(first.protocol, first.protocol)}"
    where = ""
    if level is not None and {"hessian", "kfac"} <= set(labels(level, "rung")):
        ends = [interval(level, protocol=first.protocol, rung=r) for r in ("hessian", "kfac")]
        where = f", from {span(ends[0])} to {span(ends[1])}"
    total = first.total
    if not first.defined:
        return (
            f"Replacing the exact Hessian by K-FAC changes the LDS {under} by no more than noise: "
            f"the loss is {span(total)}{where}."
        )
    if total.estimate < 0:
        gain = Interval(-total.upper, -total.estimate, -total.lower)
        return (
            f"Replacing the exact Hessian by K-FAC raises the LDS {under} by {span(gain)}{where}."
        )
    return f"Replacing the exact Hessian by K-FAC costs {span(total)} of LDS {under}{where}."


def _step(first: Blame) -> str:
    if not first.defined:
        return "Shares of the steps are therefore undefined, and no step is to blame at this size."
    if first.total.estimate < 0:
        return "As the whole is a gain, no step is to blame; the table of shares shows each one."
    share = first.shares
    if first.largest is not None:
        return (
            f"The largest step is {_named(first.largest)}, {percent(share[first.largest])} of it."
        )
    names = [f"{_named(s)} ({percent(share[s])})" for s in first.leading]
    if len(names) == 1:
        return (
            f"Which step is largest is not resolved at this size: {names[0]} has the largest "
            "estimate, but its interval reaches zero."
        )
    return f"Which step is largest is not resolved at this size: {joined(names)} overlap."


def _survival(found: list[Blame]) -> str:
    if len(found) == 1:
        return (
            "Only one damping protocol was measured, so whether this holds under another is open."
        )
    parts = []
    for other in found[1:]:
        under = f"under {PROTOCOLS.get(other.protocol, other.protocol)}"
        if not other.defined:
            parts.append(f"{under} the loss ({span(other.total)}) is within noise")
        elif other.largest is None:
            parts.append(f"{under} the largest step is not resolved")
        elif other.largest == found[0].largest:
            parts.append(f"{under} it is again {_named(other.largest)}")
        else:
            parts.append(f"{under} it is {_named(other.largest)}")
    largest = {b.largest for b in found}
    if None in largest:
        head = "The verdict is not settled across damping protocols"
    elif len(largest) == 1:
        head = "The verdict survives a change of damping protocol"
    else:
        head = "The verdict depends on the damping protocol"
    return f"{head}: {joined(parts)}."


def spectral_sentence(study: Study) -> str:
    first = protocols(study)
    """Which step adds most to the squared Frobenius error."""
    found = blame(study, UNDAMPED, first[0]) if first else None
    if found is None or not found.known:
        return "How the spectral error divides over the steps was not measured."
    if not found.defined or found.largest is None:
        return "In squared Frobenius error no step is the largest."
    share = percent(found.shares[found.largest])
    return f"In squared Frobenius error the largest step is {_named(found.largest)}, {share}."


def _without_attribution(study: Study) -> str:
    if study.group("/attribution") is None:
        return (
            "Attribution quality was not measured in this study (no retrained models), so what "
            "the steps cost in LDS is not known."
        )
    return "The LDS was measured, but not for both ends of the chain, so no loss can be divided."


def _named(step: str) -> str:
    return STEP_LABELS.get(step, step)
