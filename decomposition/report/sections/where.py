"""Where the loss lives: by layer, spectral band and query, with the examples that change most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

from decomposition.names import CHAIN
from decomposition.report.content import (
    Block,
    Cell,
    Figure,
    Gallery,
    Picture,
    PictureRow,
    Table,
    Text,
)
from decomposition.report.figures.heat import (
    AXES,
    layer_errors,
    plot_contributions,
    plot_layers,
    plot_queries,
)
from decomposition.report.names import rung_label, step_label
from decomposition.report.result import Result, interval, labels
from decomposition.report.sections.by_cell import figures
from decomposition.report.wording import isolated, joined, number, span

_NOUNS = {"layers": "layer", "bands": "spectral band"}
ROWS = 10
"""Queries in the table of those that change most."""
EXAMPLES_SHOWN = 5
"""Training examples drawn for each query and rung."""
QUERIES_SHOWN = 4
"""Queries drawn with their training examples."""


def where_blocks(result: Result) -> list[Block]:
    """Layers, bands and queries by what they lose, and the queries that change most."""
    layers = figures(result, "layers", "Error by layer and rung", _layers)
    if result.many:
        return [Text("Relative Frobenius error of each layer's own block."), *layers] * bool(layers)
    blocks: list[Block] = [
        *(_contributions(result) or _least_known(result)),
        *layers,
        *_queries(result),
        *_galleries(result, _worst_first(result)),
    ]
    if blocks and result.array("/base_models", "level") is not None:
        said = (
            "This section and the curves over damping describe the first base model alone; their "
            "intervals cover masks and queries, not base models."
        )
        blocks.insert(1, Text(said, kind="note"))
    return blocks


def _least_known(one: Result) -> list[Block]:
    """Without a split of the LDS, the layer whose block is furthest off."""
    worst = _worst_layer(one)
    return [Text(f"{worst} What the layers cost in LDS was not measured.")] if worst else []


def _worst_layer(one: Result) -> str:
    """The layer with the largest error of the last rung; "" where none is known."""
    errors = layer_errors(one)
    if errors is None:
        return ""
    rungs = labels(errors, "rung")
    shown = CHAIN[-1] if CHAIN[-1] in rungs else rungs[-1]
    last = errors.sel(rung=shown)
    if not np.isfinite(last.values).any():
        return ""
    worst = labels(errors, "block")[int(np.nanargmax(last.values))]
    of = f" in {one.name}" if one.name else ""
    return (
        f"The layer with the largest error of {rung_label(shown)}{of} is {one.layer(worst)} "
        f"({number(float(last.max()), 2)})."
    )


def _layers(one: Result, name: str) -> Figure | None:
    errors, finding = layer_errors(one), _worst_layer(one)
    if errors is None or not finding:
        return None
    rungs = labels(errors, "rung")
    rows = tuple(
        (block, *(float(errors.sel(block=block, rung=r)) for r in rungs))
        for block in labels(errors, "block")
    )
    return Figure(
        name,
        f"Relative Frobenius error by layer and rung. {finding}",
        f"Error of each layer's own block; what lies between layers is the cross-layer step. "
        f"{finding}",
        partial(plot_layers, one.tree, cell=one.cell),
        Table(name, "Error by layer", ("layer", *map(rung_label, rungs)), rows),
    )


def _contributions(result: Result) -> list[Block]:
    """Both splits of the steps' losses, as far as the result holds them."""
    blocks: list[Block] = []
    tables: list[Block] = []
    for what in _NOUNS:
        data = result.group(f"/where/{what}")
        if data is None or not {"contribution", "total"} <= set(data.data_vars):
            continue
        if not blocks:
            blocks.append(Text(f"Of each step's change in LDS: {_most(result, data, what)}."))
        blocks.append(_split(result, data, what))
        tables.append(_split_table(data, what))
    if not blocks:
        return []
    how = (
        "A step is taken one part at a time, from the first row down, and each part is given what "
        "it changes. Every rung is read at its tuned λ without cross-fitting, so the totals can "
        "differ from those of the shares within their intervals. Another sequence of the parts "
        "would divide the same total differently. No layer owns the cross-layer step."
    )
    return [*blocks, Text(how), *tables]


def _most(result: Result, data: xr.Dataset, what: str) -> str:
    """The part that counts most in each step."""
    array = data["contribution"]
    steps = labels(array, "step")
    return joined([_largest(result, array, s, AXES[what][0], what) for s in steps])


def _split(result: Result, data: xr.Dataset, what: str) -> Figure:
    dim, name, _ = AXES[what]
    array = data["contribution"]
    finding = _most(result, data, what)
    rows = tuple(
        (step, part, interval(array, **{"step": step, dim: part}))
        for step in labels(array, "step")
        for part in labels(array, dim)
    )
    return Figure(
        f"where-{what}",
        f"LDS lost by {_NOUNS[what]} and step. The part that counts most in each step: {finding}.",
        f"LDS lost (orange) or gained (purple) by {name} at each step, tuned λ; the last row is "
        "the step's total.",
        partial(plot_contributions, result.tree, what=what),
        Table(f"where-{what}-data", f"LDS by {name}", ("step", name, "contribution"), rows),
    )


def _largest(result: Result, array: xr.DataArray, step: str, dim: str, what: str) -> str:
    values = array.sel(step=step, ci_bound="estimate")
    if not np.isfinite(values.values).any():
        return f"{step_label(step)} unknown"
    part = labels(array, dim)[int(np.nanargmax(np.abs(values.values)))]
    value = span(interval(array, **{"step": step, dim: part}))
    name = f"layer {result.layer(part)}" if what == "layers" else f"ranks {isolated(part, 40)}"
    return f"{name} has most of {step_label(step)} ({value})"


def _split_table(data: xr.Dataset, what: str) -> Table:
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
    columns = (name, *(step_label(s) for s in steps))
    return Table(f"where-{what}", f"LDS lost by {_NOUNS[what]}", columns, tuple(rows))


def _queries(result: Result) -> list[Block]:
    """Every query's drop at every step, and those that change most."""
    data = result.group("/where/queries")
    if data is None or "drop" not in data:
        return []
    return [_query_figure(result, data), _query_table(result, data["drop"])]


def _worst_first(result: Result) -> list[object]:
    """Queries by what the whole chain costs them, worst first; as the result has them if unknown.

    The steps' drops of one query add up to its change from the first rung to the last.
    """
    drop = result.array("/where/queries", "drop")
    if drop is None:
        shown = result.array("/top", "top_train")
        return [] if shown is None else shown["query"].values.tolist()
    total = drop.sel(ci_bound="estimate").sum("step").values
    return drop["query"].values[np.argsort(-total, kind="stable")].tolist()


def _query_figure(result: Result, data: xr.Dataset) -> Figure:
    drop = data["drop"]
    steps = labels(drop, "step")
    parts = [
        f"{step_label(s)} {_percent(data, 'degraded', s)} lose, "
        f"{_percent(data, 'improved', s)} gain"
        for s in steps
    ]
    finding = f"Queries whose own interval excludes zero: {'; '.join(parts)}."
    rows = tuple(
        (step, str(query), interval(drop, step=step, query=query))
        for step in steps
        for query in drop["query"].values.tolist()
    )
    return Figure(
        "queries",
        f"LDS lost by each query at each step. {finding}",
        f"The share of queries that lose at most so much, protocol tuned. "
        f"{finding} Intervals miss their truth now and then by design, so a few per cent either "
        "way are no finding.",
        partial(plot_queries, result.tree),
        Table("queries", "LDS lost by query", ("step", "query", "drop"), rows),
    )


def _percent(data: xr.Dataset, name: str, step: str) -> str:
    if name not in data:
        return "–"
    return f"{100 * float(data[name].sel(step=step)):.0f}%"


def _query_table(result: Result, drop: xr.DataArray) -> Table:
    targets = result.array("/examples", "query_targets")
    steps = labels(drop, "step")
    order = _worst_first(result)
    picked = order if len(order) <= 2 * ROWS else [*order[:ROWS], *order[-ROWS:]]
    rows: list[tuple[Cell, ...]] = []
    for query in picked:
        label = "–"
        if targets is not None and query in targets["query"].values:
            label = str(targets.sel(query=query).item())
        total = float(drop.sel(query=query, ci_bound="estimate").sum())
        cells = (interval(drop, step=s, query=query) for s in steps)
        rows.append((str(query), label, *cells, total))
    columns = ("query", "label", *(step_label(s) for s in steps), "sum of the estimates")
    half = joined([f"the {ROWS} queries that lose most", f"the {ROWS} that lose least"])
    caption = f"LDS lost at each step: {half if picked is not order else 'every query'}"
    return Table("worst-queries", caption, columns, tuple(rows))


def _galleries(result: Result, order: Sequence[object]) -> list[Block]:
    """A gallery for each of the first queries of ``order`` that the result can draw."""
    data, top = result.group("/examples"), result.array("/top", "top_train")
    if data is None or top is None or not {"train_inputs", "query_inputs"} <= set(data.data_vars):
        return []
    shape = json.loads(data.attrs.get("display", "{}")).get("image_shape")
    if not shape or int(np.prod(shape)) != data.sizes["feature"]:
        return []
    known = set(data["query"].values.tolist()) & set(top["query"].values.tolist())
    ends = [r for r in (CHAIN[0], CHAIN[-1]) if r in labels(top, "rung")] or labels(top, "rung")[:2]
    return [
        _gallery(data, top, query, ends, shape)
        for query in [q for q in order if q in known][:QUERIES_SHOWN]
    ]


def _gallery(
    data: xr.Dataset, top: xr.DataArray, query: object, rungs: list[str], shape: list[int]
) -> Gallery:
    own = _picture(data, "query", query, shape)
    rows = [PictureRow("query", (own,))]
    orders = []
    for rung in rungs:
        rows_of = top.sel(rung=rung, query=query).values.tolist()[:EXAMPLES_SHOWN]
        orders.append(rows_of)
        held = set(data["train"].values.tolist())
        pictures = tuple(_picture(data, "train", row, shape) for row in rows_of if row in held)
        rows.append(PictureRow(f"top {len(rows_of)}, {rung_label(rung)}", pictures))
    shared = len(set(orders[0]) & set(orders[-1])) if len(orders) > 1 else 0
    title = f"Query {query} and the training examples ranked first"
    if len(orders) > 1:
        names = joined([rung_label(r) for r in rungs])
        title += f": {names} share {shared} of {len(orders[0])}"
    return Gallery(title, tuple(rows))


def _picture(data: xr.Dataset, kind: str, row: object, shape: list[int]) -> Picture:
    pixels = data[f"{kind}_inputs"].sel({kind: row}).values.reshape(shape)
    if pixels.ndim == 3:
        pixels = pixels.mean(int(np.argmin(pixels.shape)))
    name = f"{kind}_targets"
    label = f"label {isolated(data[name].sel({kind: row}).item(), 20)}" if name in data else ""
    return Picture(
        tuple(map(tuple, pixels.tolist())), f"{label}, row {row}" if label else f"row {row}"
    )
