"""Spectral error beside attribution: does the one predict the other, and whose error is it?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from decomposition.names import CROSS_TERM
from decomposition.report.content import Block, Cell, Columns, Figure, Table, Text, missing
from decomposition.report.figures.scatter import (
    ERRORS,
    errors_of,
    frobenius_shares,
    paired,
    plot_error_and_level,
    plot_frobenius,
    plot_prediction,
)
from decomposition.report.interval import Interval
from decomposition.report.names import METRIC_LABELS, protocol_label, step_label
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.wording import joined, span

_SHOWN = ("damped_inverse_queries", "relative_frobenius")
"""Metrics of which one is drawn, the first that is known."""
_CLEAR = 5e-4
"""A bound closer to zero than is told counts as zero."""


def prediction_blocks(result: Result) -> list[Block]:
    """Recorded rank correlation of every spectral metric with the LDS loss, and pictures."""
    blocks: list[Block] = []
    rho = result.known("/prediction", "rho")
    if rho is not None:
        found = {m: interval(rho, metric=m) for m in labels(rho, "metric")}
        found = {metric: value for metric, value in found.items() if value.known}
        blocks += [
            Text(
                "Spearman correlation between a rung's spectral error against H and the LDS it "
                "loses against H at the same λ (errors without λ: at each rung's tuned λ). +1 "
                "means that the error orders the losses perfectly; overlaps are counted as "
                "1 − overlap, so that large is always bad. A negative value means that the larger "
                f"error went with the smaller loss. The {intervals(result)} come from resampling "
                "rungs, which are few."
            ),
            Text(_reading(found)),
        ]
    if result.few and (rho is not None or result.many):
        blocks += figures(result, "prediction", "LDS lost against spectral error", _figure)
    columns = ("metric", "Spearman with the LDS lost", "cells", "rungs")
    if rho is not None:
        caption = "Spectral error and LDS lost"
        blocks += table(result, "prediction", caption, columns, _correlations)
    return [*blocks, *(_over_cells(result) if result.many else [])]


def _reading(found: dict[str, Interval]) -> str:
    signs: dict[str, list[str]] = {"larger": [], "smaller": [], "open": []}
    for metric, value in found.items():
        side = "larger" if value.lower > _CLEAR else "smaller" if value.upper < -_CLEAR else "open"
        signs[side].append(METRIC_LABELS.get(metric, metric))
    parts = []
    if signs["larger"]:
        parts.append(f"larger error goes with larger loss for {joined(signs['larger'])}")
    if signs["smaller"]:
        parts.append(f"larger error goes with smaller loss for {joined(signs['smaller'])}")
    if signs["open"]:
        parts.append(f"no direction is resolved for {joined(signs['open'])}")
    text = "; ".join(parts)
    pooled = (
        " Errors with λ are pooled over all its values: at small λ every error is large while the "
        "reference itself may score badly, so that such a sign can be the damping's doing."
        if signs["smaller"]
        else ""
    )
    return f"{text[:1].upper()}{text[1:]}.{pooled}"


def _figure(one: Result, figure: str) -> Figure | None:
    metric = next((m for m in _SHOWN if paired(one, m) is not None), None)
    data = None if metric is None else paired(one, metric)
    if metric is None or data is None:
        return None
    rows: list[tuple[Cell, ...]] = []
    for rung in labels(data["error"], "rung"):
        for damping in data["damping"].values.tolist():
            cell = data.sel(rung=rung, damping=damping)
            if np.isfinite(float(cell["error"])):
                rows.append((rung, damping, float(cell["error"]), float(cell["loss"])))
    name, rho = METRIC_LABELS.get(metric, metric), one.array("/prediction", "rho")
    of = f" in {one.name}" if one.name else ""
    told = "" if rho is None else f"; Spearman correlation {span(interval(rho, metric=metric), 2)}"
    return Figure(
        figure,
        f"LDS lost against spectral error ({name}){of}{told}.",
        f"A point per rung and λ{of}{told}.",
        partial(plot_prediction, one.tree, metric=metric, cell=one.cell),
        Table(f"{figure}-data", name, ("rung", "λ", "error", "LDS lost"), tuple(rows)),
    )


def _correlations(one: Result) -> Iterator[Row]:
    rho = one.array("/prediction", "rho")
    assert rho is not None
    counts = [one.array("/prediction", name) for name in ("cells", "rungs")]
    for metric in labels(rho, "metric"):
        value = interval(rho, metric=metric)
        if value.known:
            numbers = (None if c is None else int(c.sel(metric=metric)) for c in counts)
            yield (METRIC_LABELS.get(metric, metric), value, *numbers)


def _over_cells(result: Result) -> list[Block]:
    """LDS of every rung of every cell against two errors."""
    shown = list(dict.fromkeys((*result.protocols[:1], *result.protocols[-1:])))
    found = [
        _levels_figure(result, error, protocol)
        for error in ERRORS
        for protocol in shown
        if errors_of(result, error, protocol) is not None
        and result.known("/shares", "level") is not None
    ]
    if not found:
        return [missing("There are no errors of the matrices to set against the LDS.")]
    said = "Does a smaller error of the matrix come with a better score?"
    return [Text(said), Columns(tuple(found))]


def _levels_figure(result: Result, error: str, protocol: str) -> Figure:
    label, name = protocol_label(protocol), ERRORS[error]
    joint = "; the rungs of a cell are joined" if result.small else ""
    return Figure(
        f"{error.replace('_', '-')}-{protocol.replace('_', '-')}",
        f"LDS of every rung of every cell against {name}, {label}; the numbers are in the table "
        "of levels.",
        f"LDS against {name}, {label}{joint}.",
        partial(plot_error_and_level, result.tree, error=error, protocol=protocol),
    )


def frobenius_blocks(result: Result) -> list[Block]:
    """Whose error it is by the matrices, beside whose loss it is by the LDS: over many cells."""
    found = frobenius_shares(result)
    if not result.many or not found:
        return []
    steps = list(dict.fromkeys(step for _, step in found))
    share = result.known("/shares", "share")
    assert share is not None
    lds = share.sel(metric="lds") if "lds" in labels(share, "metric") else None
    known = [
        p for p in result.protocols if lds is not None and np.isfinite(lds.sel(protocol=p)).any()
    ]
    drawn: Block = Columns(tuple(_frobenius_figure(result, p, found) for p in known))
    if not known:
        drawn = missing("No share of the LDS is defined, so there is nothing to set beside.")
    return [Text(_sentence(found, steps)), drawn]


def _sentence(found: dict[tuple[int, str], float], steps: list[str]) -> str:
    parts = []
    for step in steps:
        values = [v for (_, s), v in found.items() if s == step]
        parts.append(f"{step_label(step)} {100 * float(np.median(values)):.0f}%")
    cross = (
        " The cross term 2⟨H−G, G−K⟩ belongs to no step and is shown apart."
        if CROSS_TERM in steps
        else ""
    )
    return (
        f"Median share of ‖H − K‖² over the cells: {joined(parts)}.{cross} On the dashed diagonal "
        "a step would cost as much LDS as it costs error; below it the error overstates the loss. "
        "The numbers of both are in the table of shares."
    )


def _frobenius_figure(result: Result, protocol: str, found: dict[tuple[int, str], float]) -> Figure:
    share = result.array("/shares", "share")
    assert share is not None
    lds = share.sel(metric="lds", protocol=protocol, ci_bound="estimate")
    parts = []
    for step in result.steps:
        values = lds.sel(step=step).values
        error = [found.get((c, step), np.nan) for c in result.cells]
        if np.isfinite(values).any() and np.isfinite(error).any():
            by = f"{100 * np.nanmedian(error):.0f}% of the error, {100 * np.nanmedian(values):.0f}%"
            parts.append(f"{step_label(step)} {by} of the LDS")
    label = protocol_label(protocol)
    return Figure(
        f"frobenius-{protocol.replace('_', '-')}",
        f"Median shares, {label}: {joined(parts)}.",
        f"Share of the LDS lost against share of the squared error, {label}.",
        partial(plot_frobenius, result.tree, protocol=protocol),
    )
