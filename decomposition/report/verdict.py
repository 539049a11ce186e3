"""The answer in words: what is lost, which step loses it, and whether the protocol matters."""

from __future__ import annotations

import math

from decomposition.report.blame import UNDAMPED, Blame, blame, protocols
from decomposition.report.study import PROTOCOLS, STEP_LABELS, Interval, Study, interval, labels
from decomposition.report.wording import joined, number, percent, span


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
            f"What replacing the exact Hessian by K-FAC costs in LDS {under} is not resolved from "
            f"zero: {span(total)}{where}."
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
            f"The largest step is {_named(first.largest)}, {percent(share[first.largest])} of it"
            f"{_probability(first)}."
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
    return f" (P {told} that {_named(first.recorded['candidate'])} is the largest)"


def _more(first: Blame) -> str:
    if not first.recorded:
        return ""
    masks = first.recorded.get("more_masks")
    if masks is None:
        return "; more masks alone would not resolve it"
    return f"; about {masks:,} more masks would resolve it"


def _survival(found: list[Blame]) -> str:
    if len(found) == 1:
        return (
            "Only one damping protocol was measured, so whether this holds under another is open."
        )
    if not any(b.defined for b in found):
        names = joined([PROTOCOLS.get(b.protocol, b.protocol) for b in found[1:]])
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
        outcomes.setdefault(outcome, []).append(PROTOCOLS.get(other.protocol, other.protocol))
    parts = [f"under {joined(names)} {outcome}" for outcome, names in outcomes.items()]
    largest = {b.largest for b in found}
    if None in largest:
        head = "The verdict is not settled across damping protocols"
    elif len(largest) == 1:
        head = "The verdict survives a change of damping protocol"
    else:
        head = "The verdict depends on the damping protocol"
    return f"{head}: {'; '.join(parts)}."


def spectral_sentence(study: Study) -> str:
    """Which step adds most to the squared Frobenius error."""
    first = protocols(study)
    found = blame(study, UNDAMPED, first[0]) if first else None
    if found is None or not found.known:
        return "How the spectral error divides over the steps was not measured."
    if not found.defined or found.largest is None:
        return "In squared Frobenius error no step is the largest."
    share = percent(found.shares[found.largest])
    return f"In squared Frobenius error the largest step is {_named(found.largest)}, {share}."


def _without_attribution(study: Study) -> str:
    if study.group("/forms") is not None:
        return _agreeing(study)
    if study.group("/attribution") is None:
        return (
            "Attribution quality was not measured in this study (no retrained models), so what "
            "the steps cost in LDS is not known."
        )
    return "The LDS was measured, but not for both ends of the chain, so no loss can be divided."


def _named(step: str) -> str:
    return STEP_LABELS.get(step, step)


def _agreeing(study: Study) -> str:
    """What is known of scores without models retrained for this result."""
    said = "Attribution quality was not measured: no retrained models are at hand."
    agreement = study.array("/attribution", "agreement")
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
