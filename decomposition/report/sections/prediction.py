"""Section 7: does spectral error predict attribution loss?"""

from __future__ import annotations

from functools import partial

import numpy as np

from decomposition.report.content import Block, Cell, Figure, Section, Table, Text, missing
from decomposition.report.figures.prediction import paired, plot_prediction
from decomposition.report.interval import Interval
from decomposition.report.study import METRIC_LABELS, Study, interval, intervals, labels
from decomposition.report.wording import joined, span

_SHOWN = ("damped_inverse_queries", "relative_frobenius")
"""Metrics of which one is drawn, the first that is known."""
_CLEAR = 5e-4
"""A bound closer to zero than is told counts as zero."""


def prediction(study: Study) -> Section:
    """Recorded rank correlation of every spectral metric with the LDS loss, and a picture."""
    title = "Does spectral error predict attribution loss?"
    rho = study.array("/prediction", "rho")
    found = {} if rho is None else {m: interval(rho, metric=m) for m in labels(rho, "metric")}
    found = {metric: value for metric, value in found.items() if value.known}
    if not found:
        text = "Spectral errors and LDS of three rungs or more are needed, and are not here."
        return Section("prediction", title, (missing(text),))
    blocks: list[Block] = [
        Text(
            "Spearman correlation between a rung's spectral error against H and the LDS it loses "
            "against H at the same λ (errors without λ: at each rung's tuned λ). +1 means that "
            "the error orders the losses perfectly; overlaps are counted as 1 − overlap, so that "
            "large is always bad. A negative value means that the larger error went with the "
            f"smaller loss. The {intervals(study)} come from resampling rungs, which are few."
        ),
        Text(_reading(found)),
    ]
    shown = next((m for m in _SHOWN if m in found and paired(study, m) is not None), None)
    if shown is not None:
        blocks.append(_figure(study, shown, found[shown]))
    blocks.append(_table(study, found))
    return Section("prediction", title, tuple(blocks))


def _reading(found: dict[str, Interval]) -> str:
    signs = {"larger": [], "smaller": [], "open": []}
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


def _figure(study: Study, metric: str, rho: Interval) -> Figure:
    data = paired(study, metric)
    assert data is not None
    rows: list[tuple[Cell, ...]] = []
    for rung in labels(data["error"], "rung"):
        for damping in data["damping"].values.tolist():
            cell = data.sel(rung=rung, damping=damping)
            if np.isfinite(float(cell["error"])):
                rows.append((rung, damping, float(cell["error"]), float(cell["loss"])))
    name = METRIC_LABELS.get(metric, metric)
    return Figure(
        "prediction",
        f"LDS lost against spectral error ({name}): Spearman correlation {span(rho, 2)}.",
        f"A point per rung and λ; Spearman correlation {span(rho, 2)}.",
        partial(plot_prediction, study.tree, metric=metric),
        Table("prediction-data", name, ("rung", "λ", "error", "LDS lost"), tuple(rows)),
    )


def _table(study: Study, found: dict[str, Interval]) -> Table:
    counts = [study.array("/prediction", name) for name in ("cells", "rungs")]
    rows = []
    for metric, value in found.items():
        numbers = (None if c is None else int(c.sel(metric=metric)) for c in counts)
        rows.append((METRIC_LABELS.get(metric, metric), value, *numbers))
    columns = ("metric", "Spearman with the LDS lost", "cells", "rungs")
    return Table("prediction", "Spectral error and LDS lost", columns, tuple(rows))
