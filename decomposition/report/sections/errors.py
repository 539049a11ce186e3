"""The error of the matrix: whose it is, and whether it predicts the loss of attribution."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.names import STEPS
from decomposition.report.content import Block, Cell, Columns, Figure, Table, Text, missing
from decomposition.report.figures.scatter import (
    ERRORS,
    errors_of,
    frobenius_shares,
    paired,
    plot_error_and_level,
    plot_frobenius,
    plot_prediction,
    plot_residual,
    residual_points,
)
from decomposition.report.figures.waterfall import plot_spectral_waterfall
from decomposition.report.interval import Interval
from decomposition.report.names import (
    METRIC_LABELS,
    SHARE_METRICS,
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.sections.shares import step_tables
from decomposition.report.sections.spectra import with_error
from decomposition.report.verdict import spectral_sentence
from decomposition.report.wording import joined, number, percent, some, span

_SHOWN = ("damped_inverse_queries", "relative_frobenius")
"""Metrics of which one is drawn, the first that is known."""
_SQUARED = ("frobenius_squared", "damped_inverse_squared")
_OVER_MANY = (
    *_SQUARED,
    "inverse_residual_train",
    "block_eigenvalue_overlap",
    "block_subspace_overlap",
)
"""Errors whose steps are told of every cell of many: the others stand in the result."""
_ESTIMATED = "Steps with whiskers are estimated with random probes; the others are exact."
_CLEAR = 5e-4
"""A bound closer to zero than is told counts as zero."""


def prediction_blocks(result: Result) -> list[Block]:
    """What each step adds to the error of the matrix; whether errors predict the loss of LDS."""
    rho = result.known("/prediction", "rho")
    blocks: list[Block] = [Text(_finding(result, rho))]
    drawn = figures(result, "prediction", "LDS lost against spectral error", _figure)
    if result.many:
        blocks += _beside_the_loss(result)
        drawn = [*_over_cells(result), *(drawn if result.few else [])]
    blocks += drawn
    if rho is not None:
        blocks.append(
            Text(f"{_CORRELATION} The {intervals(result)} are over rungs, which are few.")
        )
        columns = ("error", "Spearman with the LDS lost", "cells", "rungs")
        caption = "Spectral error and LDS lost"
        blocks += table(result, "prediction", caption, columns, _correlations)
    drop = result.array("/shares", "drop")
    for metric in _OVER_MANY if result.many else SHARE_METRICS:
        if metric == "lds" or drop is None or metric not in labels(drop, "metric"):
            continue
        if drop.sel(metric=metric).notnull().any():
            name = f"spectral-{metric.replace('_', '-')}"
            if result.few and metric in _SQUARED:
                blocks += figures(result, name, "Squared errors", partial(_waterfall, metric))
            blocks += step_tables(result, metric)
    blocks += [*_at_every_damping(result), *_residuals_and_lds(result)]
    return [*blocks, *_errors(result)]


def _residuals_and_lds(result: Result) -> list[Block]:
    """The residual against the LDS over rungs, λ and cells, and how their ranks go together."""
    rho = result.known("/residual_lds", "rho")
    points = residual_points(result, RESIDUAL)
    blocks: list[Block] = []
    if points is not None:
        told = "" if rho is None else f" Spearman {span(interval(rho, metric=RESIDUAL), 2)}."
        name = METRIC_LABELS[RESIDUAL]
        figure = Figure(
            "residual-lds",
            f"LDS against the {name} over {len(points):,} points.{told}",
            f"LDS against the {name} (Eq. 9): a mark per rung, λ, cell, larger at larger λ.{told}",
            partial(plot_residual, result.tree, metric=RESIDUAL),
        )
        blocks.append(Columns((figure,)))
    if rho is None:
        return blocks
    over = result.said("/residual_lds", "resampled")
    whole = {"cells": "cells, with all their rungs and λ", "rungs": "rungs, with all their λ"}
    blocks.append(Text(_RESIDUAL_LDS.format(whole=whole.get(over, over))))
    columns = ("error", "λ / unit", "all points", "mean within a cell")
    caption = "Spearman correlation of the residual of the inverse with the LDS"
    return [*blocks, Table("residual-lds", caption, columns, tuple(_residual_rows(result, rho)))]


def _residual_rows(result: Result, rho: xr.DataArray) -> Iterator[Row]:
    at, within = (result.array("/residual_lds", f"rho_{n}") for n in ("at_damping", "within_cells"))
    assert at is not None
    assert within is not None
    for metric in labels(rho, "metric"):
        name = METRIC_LABELS.get(metric, metric)
        yield (name, "all", interval(rho, metric=metric), None)
        for multiplier in at["multiplier"].values.tolist():
            place = {"metric": metric, "multiplier": multiplier}
            mean = interval(within, **place)
            yield (name, f"{multiplier:.2g}", interval(at, **place), mean if mean.known else None)


def _at_every_damping(result: Result) -> list[Block]:
    caption = "Share of each step in the residuals of the inverse, at one λ for all rungs"
    columns = ("error", "λ / unit", "total", *map(step_label, STEPS))
    return table(result, "residuals-at-damping", caption, columns, _residual_shares)


def _residual_shares(one: Result) -> Iterator[Row]:
    """Shares as text beside their total, which is no share."""
    share, total = (one.known("/shares/errors", name) for name in ("share", "total"))
    defined = one.array("/shares/errors", "defined")
    if share is None or total is None or defined is None:
        return
    for metric in labels(total, "metric"):
        for multiplier in total["multiplier"].values.tolist():
            place = {"metric": metric, "multiplier": multiplier}
            whole = interval(total, **place)
            if not whole.known:
                continue
            known = bool(defined.sel(place))
            cells = (
                percent(interval(share, step=s, **place)) if known else "undefined" for s in STEPS
            )
            yield (METRIC_LABELS.get(metric, metric), f"{multiplier:.2g}", whole, *cells)


RESIDUAL = "inverse_residual_train"
"""The paper's error."""
_RESIDUAL_LDS = (
    "−1: the smaller residual has the higher LDS at the same λ. Over all points λ and cells differ "
    "as well as rungs, at one λ cells do, and within a cell no more than its rungs. Resampled are "
    "whole {whole}."
)
_CORRELATION = (
    "Spearman correlation between a rung's spectral error against H and the LDS it loses against H "
    "at the same λ (errors without λ: at each rung's tuned λ). +1: the error orders the losses "
    "perfectly; negative: the larger error went with the smaller loss. Overlaps are counted as "
    "1 − overlap, so that large is always bad. Errors with λ are pooled over all its values: at "
    "small λ every error is large while the reference itself may score badly, so that a negative "
    "sign can be the damping's doing."
)


def _finding(result: Result, rho: xr.DataArray | None) -> str:
    if result.many:
        found = frobenius_shares(result)
        steps = list(dict.fromkeys(step for _, step in found))
        return _sentence(found, steps) if found else "Errors of each rung as a matrix."
    told = spectral_sentence(result)
    if rho is None:
        return told
    by_metric = {m: interval(rho, metric=m) for m in labels(rho, "metric")}
    return f"{told} {_reading({m: v for m, v in by_metric.items() if v.known})}"


def _reading(found: dict[str, Interval]) -> str:
    signs: dict[str, list[str]] = {"larger": [], "smaller": [], "open": []}
    for metric, value in found.items():
        side = "larger" if value.lower > _CLEAR else "smaller" if value.upper < -_CLEAR else "open"
        signs[side].append(METRIC_LABELS.get(metric, metric).partition(" (")[0])
    parts = []
    if signs["larger"]:
        parts.append(f"a larger loss of LDS for {some(signs['larger'], 3)}")
    if signs["smaller"]:
        parts.append(f"a smaller one for {some(signs['smaller'], 3)}")
    if not parts:
        return "No error of the matrix is resolved to go with the loss of LDS."
    rest = f"; the other {len(signs['open'])} are not resolved" if signs["open"] else ""
    return f"Over rungs and λ, a larger error goes with {'; with '.join(parts)}{rest}."


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
    """LDS of every rung of every cell against two errors, under the first protocol."""
    found = [
        _levels_figure(result, error, protocol)
        for error in ERRORS
        for protocol in result.protocols[:1]
        if errors_of(result, error, protocol) is not None
        and result.known("/shares", "level") is not None
    ]
    return [Columns(tuple(found))] if found else []


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


def _beside_the_loss(result: Result) -> list[Block]:
    """Whose error it is by the matrices, against whose loss it is by the LDS."""
    found, share = frobenius_shares(result), result.known("/shares", "share")
    if not found or share is None or "lds" not in labels(share, "metric"):
        return []
    lds = share.sel(metric="lds")
    known = [p for p in result.protocols if np.isfinite(lds.sel(protocol=p)).any()]
    if not known:
        return [missing("No share of the LDS is defined, so there is nothing to set beside.")]
    drawn = [_frobenius_figure(result, p, found) for p in known]
    return [drawn[0], Columns(tuple(drawn[1:]))]


def _sentence(found: dict[tuple[int, str], float], steps: list[str]) -> str:
    parts = []
    for step in steps:
        values = [v for (_, s), v in found.items() if s == step]
        parts.append(f"{step_label(step)} {100 * float(np.median(values)):.0f}%")
    return f"Median share of ‖H − K‖² over the cells: {joined(parts)}."


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
        f"Share of the LDS lost against share of the squared error, {label}. On the dashed "
        "diagonal a step would cost as much LDS as error; below it the error overstates the loss.",
        partial(plot_frobenius, result.tree, protocol=protocol),
    )


def _waterfall(metric: str, one: Result, name: str) -> Figure | None:
    drop = one.array("/shares", "drop")
    if drop is None or not one.protocols:
        return None
    protocol = one.protocols[0]
    values = {
        s: interval(drop, metric=metric, protocol=protocol, step=s) for s in labels(drop, "step")
    }
    values = {s: v for s, v in values.items() if v.known}
    if not values:
        return None
    parts = [f"{step_label(s)} {number(v.estimate)}" for s, v in values.items()]
    title = SHARE_METRICS[metric]
    of = f" in {one.name}" if one.name else ""
    exact = all(value.exact for value in values.values())
    how = "Exact: no sampling, so no intervals." if exact else _ESTIMATED
    return Figure(
        name,
        f"Waterfall of the {title} of K-FAC against the Hessian{of}: {joined(parts)}.",
        f"The {title} added by each step{of}. {how}",
        partial(plot_spectral_waterfall, one.tree, metric=metric, protocol=protocol, cell=one.cell),
        Table(
            name,
            f"{title} by step",
            ("step", "drop"),
            tuple((s, v.estimate if exact else v) for s, v in values.items()),
        ),
    )


def _errors(result: Result) -> list[Block]:
    """Every rung's errors against the Hessian, then against the GGN; the fewer are the columns."""
    blocks: list[Block] = []
    for name, target in (("value", "H"), ("value_against_ggn", "G")):
        array = result.known("/spectral_error", name)
        if array is None:
            continue
        metrics = [m for m in labels(array, "metric") if array.sel(metric=m).notnull().any()]
        rungs = [r for r in result.rungs if r in labels(array, "rung")]
        down = len(metrics) > len(rungs)
        heads = map(rung_label, rungs) if down else (METRIC_LABELS.get(m, m) for m in metrics)
        columns = ("error" if down else "rung", *heads)
        caption = f"Spectral error against {target}; ± is a standard error"
        rows = partial(_error_rows, name, metrics, rungs, down)
        blocks += table(result, f"spectral-error-{target}", caption, columns, rows)
    return blocks


def _error_rows(
    name: str, metrics: list[str], rungs: list[str], down: bool, one: Result
) -> Iterator[Row]:
    """A row per metric where ``down``, else a row per rung."""
    data = one.group("/spectral_error")
    assert data is not None
    spread = data.get(name.replace("value", "standard_error"))

    def cell(metric: str, rung: str) -> Cell:
        place = {"metric": metric, "rung": rung}
        error = 0.0 if spread is None else float(spread.sel(place))
        return with_error(float(data[name].sel(place)), error)

    if down:
        for metric in metrics:
            yield (METRIC_LABELS.get(metric, metric), *(cell(metric, r) for r in rungs))
        return
    for rung in rungs:
        cells = [cell(metric, rung) for metric in metrics]
        if any(value is not None for value in cells):
            yield (rung_label(rung, 120), *cells)
