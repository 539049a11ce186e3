"""Section 2: the waterfalls, of attribution quality and of spectral error, side by side."""

from __future__ import annotations

from functools import partial

from decomposition.report.blame import protocols
from decomposition.report.content import Block, Figure, Items, Section, Table, Text, missing
from decomposition.report.figures.spectral_waterfall import plot_spectral_waterfall
from decomposition.report.figures.waterfall import levels, plot_waterfall
from decomposition.report.palette import rung_label
from decomposition.report.sections.levels import level_tables
from decomposition.report.study import (
    PROTOCOLS,
    SHARE_METRICS,
    STEP_LABELS,
    STEP_MEANINGS,
    Study,
    interval,
    intervals,
    labels,
)
from decomposition.report.wording import fixed, joined, number
from decomposition.results.schema import STEPS


def waterfall(study: Study) -> Section:
    """LDS from the noise ceiling down to K-FAC, and the squared spectral error up to it."""
    blocks: list[Block] = [
        Text(
            "From top to bottom each rung is one step cheaper than the one above it; the number in "
            "brackets is the change. The first gap, from the noise ceiling to the exact Hessian, "
            "is what influence functions lose with the exact curvature: it is no step of the "
            "approximation and no part of the shares."
        ),
        Items(tuple(f"{STEP_LABELS[s]}: {STEP_MEANINGS[s]}" for s in STEPS)),
    ]
    measured = study.array("/shares", "level") is not None
    if measured:
        blocks += [_lds(study, p) for p in protocols(study)]
    else:
        blocks.append(missing("LDS along the chain was not measured: no waterfall can be drawn."))
    drop = study.array("/shares", "drop")
    for metric in ("frobenius_squared", "damped_inverse_squared"):
        if drop is not None and drop.sel(metric=metric).notnull().any():
            blocks.append(_spectral(study, metric))
    if measured:
        blocks += level_tables(study)
    return Section("waterfall", "From the exact Hessian to K-FAC", tuple(blocks))


def _lds(study: Study, protocol: str) -> Figure:
    rows = levels(study, protocol)
    parts = [
        f"{'noise ceiling' if n == 'ceiling' else rung_label(n)} {fixed(v.estimate)}"
        for n, v in rows.items()
    ]
    name = PROTOCOLS.get(protocol, protocol)
    return Figure(
        f"waterfall-{protocol}",
        f"Waterfall of LDS under {name}: {joined(parts)}.",
        f"LDS along the chain under {name}. Bars are the steps, whiskers {intervals(study)}.",
        partial(plot_waterfall, study.tree, protocol=protocol),
        Table(
            f"waterfall-{protocol}",
            f"LDS along the chain, {name}",
            ("rung", "LDS"),
            tuple((n, v) for n, v in rows.items()),
        ),
    )


def _spectral(study: Study, metric: str) -> Figure:
    drop = study.array("/shares", "drop")
    assert drop is not None
    protocol = protocols(study)[0]
    values = {
        s: interval(drop, metric=metric, protocol=protocol, step=s) for s in labels(drop, "step")
    }
    values = {s: v for s, v in values.items() if v.known}
    parts = [f"{STEP_LABELS.get(s, s)} {number(v.estimate)}" for s, v in values.items()]
    title = SHARE_METRICS[metric]
    exact = all(value.exact for value in values.values())
    how = "Exact: no sampling, so no intervals." if exact else _ESTIMATED
    return Figure(
        f"spectral-{metric.replace('_', '-')}",
        f"Waterfall of the {title} of K-FAC against the Hessian: {joined(parts)}.",
        f"The {title} added by each step. {how}",
        partial(plot_spectral_waterfall, study.tree, metric=metric, protocol=protocol),
        Table(
            f"spectral-{metric}",
            f"{title} by step",
            ("step", "drop"),
            tuple((s, v.estimate if exact else v) for s, v in values.items()),
        ),
    )


_ESTIMATED = "Steps with whiskers are estimated with random probes; the others are exact."
