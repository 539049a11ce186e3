"""What each rung costs by itself, beside the LDS that it reaches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Table, Text
from decomposition.report.figures.cost import plot_cost
from decomposition.report.names import rung_label
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, table
from decomposition.report.wording import fixed, joined

_ONCE = ("build", "decompose")
_WHOLE = 10**6
"""Counts below are told in full."""
_HOW = (
    "A rung's cost is what it takes by itself: parts that it shares with others here, as the "
    "matrix of G or Kronecker factors, are charged to it in full, and blocks for their part of a "
    "matrix. Once: to build and to decompose it. A query: its gradient, one solve at one λ, and "
    "the products with the gradients of all training examples. Operations are counted from sizes, "
    "the same on every machine; in the figure they include the training examples' gradients. "
    "Seconds are those of all threads in this run, on whatever else the machine did; memory is "
    "counted, at the peak, beyond the gradients."
)


def cost_blocks(result: Result) -> list[Block]:
    """The frontier in words and as a figure, and the counts and seconds behind it."""
    data = result.group("/recommendation")
    blocks: list[Block] = []
    if data is not None:
        blocks += [Text(_frontier(data)), _figure(result, data)]
    found = table(result, "cost", "What each rung takes by itself", _columns(result), _rows)
    return [*blocks, Text(_HOW), *found] if found else blocks


def _frontier(data: xr.Dataset) -> str:
    """The rungs that no cheaper one equals, with what they reach and cost."""
    edge = [rung for rung in labels(data["rung"], "rung") if int(data["frontier"].sel(rung=rung))]
    edge.sort(key=lambda rung: float(data["cost"].sel(rung=rung)))
    first = float(data["cost"].sel(rung=edge[0]))
    parts = [
        f"{rung_label(rung)} ({fixed(float(data['level'].sel(rung=rung, ci_bound='estimate')), 2)}"
        + (")" if rung == edge[0] else f", {_times(data, rung, first)} times the work)")
        for rung in edge
    ]
    if len(edge) == 1:
        return f"No rung scores as high as {parts[0]}, and none is cheaper."
    return (
        f"Worth their work, by their LDS, are {joined(parts)}: every other rung has a cheaper one "
        "that scores as high."
    )


def _times(data: xr.Dataset, rung: str, first: float) -> str:
    ratio = float(data["cost"].sel(rung=rung)) / first
    return f"{float(f'{ratio:.2g}'):,g}"


def _figure(result: Result, data: xr.Dataset) -> Figure:
    over = f", mean over {len(result.cells)} cells" if result.many else ""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            rung_label(rung, 60),
            float(data["cost"].sel(rung=rung)),
            interval(data["level"], rung=rung),
            "yes" if int(data["frontier"].sel(rung=rung)) else "no",
        )
        for rung in labels(data["rung"], "rung")
        if np.isfinite(float(data["cost"].sel(rung=rung)))
    )
    columns = ("rung", "operations", "LDS", "no cheaper rung equals it")
    return Figure(
        "lds-cost",
        f"LDS against cost{over}. {_frontier(data)}",
        f"LDS of each rung at its own best λ, with {intervals(result)}, against what it costs by "
        f"itself{over}; the dashed line joins the rungs that no cheaper one equals.",
        partial(plot_cost, result.tree, cell=result.cell),
        Table("lds-cost-data", f"LDS and cost{over}", columns, rows),
    )


def _seconds(result: Result) -> dict[str, dict[str, float]]:
    """Rung → phase → seconds of the processor, where they were measured."""
    return json.loads(result.said("/cost", "processor_seconds") or "{}")


def _columns(result: Result) -> tuple[str, ...]:
    counted = ("operations once", "operations a query", "backward passes once")
    measured = ("seconds once", "seconds a query") if _seconds(result) else ()
    return ("rung", *counted, "products a query", "memory (MiB)", *measured)


def _rows(one: Result) -> Iterator[Row]:
    data = one.group("/cost")
    if data is None:
        return
    seconds = _seconds(one)
    for rung in labels(data["rung"], "rung"):
        here = data.sel(rung=rung)
        counts = [
            float(here[name].sel(phase=list(phases)).sum(skipna=False))
            for name, phases in (
                ("operations", _ONCE),
                ("operations", ("solve",)),
                ("backward_passes", _ONCE),
                ("products", ("solve",)),
            )
        ]
        spent = seconds.get(rung, {})
        measured = [sum(spent.get(p, 0.0) for p in _ONCE), spent.get("solve")] if seconds else []
        yield (
            rung_label(rung, 60),
            *(_count(value) for value in counts),
            _count(float(here["memory"]) / 2**20),
            *measured,
        )


def _count(value: float) -> Cell:
    """A whole number, or three digits of a large one; nothing where it is not counted."""
    if not np.isfinite(value):
        return None
    return int(value) if value == round(value) < _WHOLE else float(f"{value:.3g}")
