"""Layers × steps and spectral bands × steps: heat maps, and tables with intervals."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Table, Text, missing
from decomposition.report.figures.contributions import AXES, plot_contributions
from decomposition.report.study import STEP_LABELS, Study, interval, labels
from decomposition.report.wording import isolated, joined, number, span

_NOUNS = {"layers": "layer", "bands": "spectral band"}


def contributions(study: Study) -> list[Block]:
    """Both splits of the steps' losses, as far as the result holds them."""
    blocks: list[Block] = []
    tables: list[Block] = []
    for what, noun in _NOUNS.items():
        data = study.group(f"/where/{what}")
        if data is None or not {"contribution", "total"} <= set(data.data_vars):
            blocks.append(missing(f"LDS lost by {noun} is not in this result."))
            continue
        if not blocks:
            blocks.append(
                Text(
                    "A step is taken one part at a time, from the first row down, and each part "
                    "is given what it changes; the parts add up to the step's total. Every rung "
                    "is read at its tuned λ without cross-fitting, so the totals can differ from "
                    "those of the shares within their intervals. Another sequence of the parts "
                    "would divide the same total differently."
                )
            )
        blocks.append(_figure(study, data, what))
        tables.append(_table(data, what))
    return [*blocks, *tables]


def _figure(study: Study, data: xr.Dataset, what: str) -> Figure:
    dim, name, _ = AXES[what]
    array = data["contribution"]
    finding = joined([_largest(array, step, dim, what) for step in labels(array, "step")])
    left_out = "" if what == "bands" else _unsplit(labels(array, "step"))
    rows = tuple(
        (step, part, interval(array, **{"step": step, dim: part}))
        for step in labels(array, "step")
        for part in labels(array, dim)
    )
    return Figure(
        f"where-{what}",
        f"LDS lost by {_NOUNS[what]} and step. The part that counts most in each step: {finding}.",
        f"LDS lost (orange) or gained (purple) by {name} at each step, tuned λ; the last row is "
        f"the step's total. The part that counts most: {finding}.{left_out}",
        partial(plot_contributions, study.tree, what=what),
        Table(f"where-{what}-data", f"LDS by {name}", ("step", name, "contribution"), rows),
    )


def _largest(array: xr.DataArray, step: str, dim: str, what: str) -> str:
    values = array.sel(step=step, ci_bound="estimate")
    if not np.isfinite(values.values).any():
        return f"{STEP_LABELS.get(step, step)} unknown"
    part = labels(array, dim)[int(np.nanargmax(np.abs(values.values)))]
    value = span(interval(array, **{"step": step, dim: part}))
    noun = "layer" if what == "layers" else "ranks"
    return f"{STEP_LABELS.get(step, step)}: {noun} {isolated(part, 40)}, {value}"


def _unsplit(steps: list[str]) -> str:
    if "cross_layer" in steps:
        return ""
    return " The cross-layer step is what couples layers, so no layer owns it."


def _table(data: xr.Dataset, what: str) -> Table:
    dim, name, _ = AXES[what]
    array = data["contribution"]
    steps = labels(array, "step")
    rows: list[tuple[Cell, ...]] = [
        (part, *(interval(array, **{"step": s, dim: part}) for s in steps))
        for part in labels(array, dim)
    ]
    rows.append(("total", *(interval(data["total"], step=s) for s in steps)))
    if "remainder" in data:
        ends = [interval(data["remainder"], step=s) for s in steps]
        # zero up to rounding; an interval of rounding errors would say nothing
        rows.append(("remainder", *(number(e.estimate, 1) for e in ends)))
    columns = (name, *(STEP_LABELS.get(s, s) for s in steps))
    return Table(f"where-{what}", f"LDS lost by {_NOUNS[what]}", columns, tuple(rows))
