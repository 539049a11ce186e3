"""Section 3: shares under every protocol and metric, in figures and in full."""

from __future__ import annotations

from functools import partial

from decomposition.report.blame import UNDAMPED, Blame, blame, cases
from decomposition.report.content import Block, Cell, Figure, Section, Table, Text, missing
from decomposition.report.figures.shares import plot_shares
from decomposition.report.sections.mismatch import mismatch
from decomposition.report.sections.orders import glance, marginals
from decomposition.report.study import (
    PROTOCOLS,
    SHARE_METRICS,
    STEP_LABELS,
    Interval,
    Study,
    interval,
    intervals,
    labels,
)
from decomposition.report.wording import joined, percent
from decomposition.results.schema import CROSS_TERM, STEPS


def shares(study: Study) -> Section:
    """One figure per metric, then the drops and the shares as tables."""
    drop = study.array("/shares", "drop")
    if drop is None:
        text = "The result holds no shares: the chain is incomplete or nothing was compared."
        return Section("shares", "Shares of the steps", (missing(text),))
    found = [b for m, p in cases(study) if (b := blame(study, m, p)) and b.known]
    blocks: list[Block] = [
        Text(
            "A share is a step's drop divided by the total drop. A negative share is a step that "
            "improves matters; it is shown, not clipped. Where the total is within noise the "
            "shares are undefined. Unless an order is named, shares are read along the chain's "
            "own order: linearisation, cross-layer, eigenbasis, eigenvalues."
        ),
        *glance(study),
    ]
    for metric in dict.fromkeys(b.metric for b in found):
        here = [b for b in found if b.metric == metric]
        if here:
            blocks.append(_figure(study, metric, here))
    blocks += [_share_table(study, found), _drop_table(study, found)]
    blocks += [*marginals(study), *mismatch(study)]
    return Section("shares", "Shares of the steps", tuple(blocks))


def _figure(study: Study, metric: str, found: list[Blame]) -> Figure:
    parts = []
    for b in found:
        name = _names(b)[1] + (" damping" if b.metric == UNDAMPED else "")
        if not b.defined:
            parts.append(f"undefined under {name}")
        elif b.largest is None:
            parts.append(f"no step resolved as the largest under {name}")
        else:
            step = f"{STEP_LABELS[b.largest]} ({percent(b.shares[b.largest])})"
            parts.append(f"the largest under {name} is {step}")
    title = SHARE_METRICS.get(metric, metric)
    rows = tuple(
        (b.protocol, step, b.shares[step] if b.defined else None)
        for b in found
        for step in b.shares
    )
    return Figure(
        f"shares-{metric.replace('_', '-')}",
        f"Shares of the {title}: {joined(parts)}.",
        f"Shares of the {title}, a marker per damping protocol; {_lines(study, found)}.",
        partial(plot_shares, study.tree, metric=metric),
        Table(f"shares-{metric}", f"Shares of the {title}", ("protocol", "step", "share"), rows),
    )


def _lines(study: Study, found: list[Blame]) -> str:
    exact = all(b.total.exact for b in found)
    return "exact, so without intervals" if exact else f"lines are {intervals(study)}"


def _share_table(study: Study, found: list[Blame]) -> Table:
    share = study.array("/shares", "share")
    cross = share is not None and CROSS_TERM in labels(share, "step")
    rows: list[tuple[Cell, ...]] = []
    for b in found:
        row: list[Cell] = [*_names(b)]
        for step in STEPS:
            row.append(b.shares.get(step) if b.defined else "undefined")
        if cross:
            assert share is not None
            value = interval(share, metric=b.metric, protocol=b.protocol, step=CROSS_TERM)
            row.append(value if b.defined and value.known else None)
        row.append(_verdict(b))
        rows.append(tuple(row))
    steps = [STEP_LABELS[s] for s in STEPS] + (["cross term"] if cross else [])
    columns = ("metric", "damping", *steps, "largest step")
    return Table("shares", "Share of each step", columns, tuple(rows), shares=True)


def _drop_table(study: Study, found: list[Blame]) -> Table:
    drop = study.array("/shares", "drop")
    degrades = study.array("/shares", "probability_degrades")
    rows: list[tuple[Cell, ...]] = []
    for b in found:
        for step in [*STEPS, CROSS_TERM]:
            if drop is None or step not in labels(drop, "step"):
                continue
            value: Interval = interval(drop, metric=b.metric, protocol=b.protocol, step=step)
            if not value.known:
                continue
            chance: Cell = None
            if degrades is not None and step != CROSS_TERM:
                place = {"metric": b.metric, "protocol": b.protocol, "step": step}
                chance = float(degrades.sel(place))
            rows.append((*_names(b), STEP_LABELS[step], value, chance))
        rows.append((*_names(b), "total", b.total, None))
    columns = ("metric", "damping", "step", "drop", "P(degrades)")
    return Table("drops", "Drop of each step; positive is a degradation", columns, tuple(rows))


def _names(b: Blame) -> tuple[str, str]:
    damping = "any" if b.metric == UNDAMPED else PROTOCOLS.get(b.protocol, b.protocol)
    return SHARE_METRICS.get(b.metric, b.metric), damping


def _verdict(b: Blame) -> str:
    if not b.defined:
        return "undefined: total within noise"
    return STEP_LABELS[b.largest] if b.largest is not None else "not resolved"
