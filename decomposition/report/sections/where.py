"""Section 5: where the loss lives, by layer and by query, with the examples themselves."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.blame import protocols
from decomposition.report.content import (
    Block,
    Cell,
    Figure,
    Gallery,
    Picture,
    PictureRow,
    Section,
    Table,
    missing,
)
from decomposition.report.figures.layers import layer_errors, plot_layers
from decomposition.report.figures.queries import plot_queries, query_changes
from decomposition.report.palette import rung_label
from decomposition.report.study import Study, labels
from decomposition.report.wording import fixed, isolated, joined, number
from decomposition.results.schema import CHAIN

EXAMPLES_SHOWN = 5
"""Training examples drawn for each query and rung."""

QUERIES_SHOWN = 4
"""Queries drawn with their training examples."""


def where(study: Study) -> Section:
    """Layers × rungs, queries by what they lose, and the queries that change most."""
    blocks: list[Block] = []
    errors = layer_errors(study)
    if errors is None:
        blocks.append(missing("Spectral errors by layer are not in this result."))
    else:
        blocks.append(_layers(errors, study))
    first = next(iter(protocols(study)), "equal")
    change = query_changes(study, first)
    if change is None:
        blocks.append(missing("LDS by query under both H and K-FAC is not in this result."))
    else:
        blocks += [_queries(study, change, first), _table(study, change)]
    galleries = _galleries(study, change)
    blocks += galleries or [missing("The result holds no images of its examples.")]
    return Section("where", "Where the loss lives", tuple(blocks))


def _layers(errors: xr.DataArray, study: Study) -> Figure:
    rungs = labels(errors, "rung")
    shown = CHAIN[-1] if CHAIN[-1] in rungs else rungs[-1]
    last = errors.sel(rung=shown)
    worst = labels(errors, "block")[int(np.nanargmax(last.values))]
    rows = tuple(
        (block, *(float(errors.sel(block=block, rung=r)) for r in rungs))
        for block in labels(errors, "block")
    )
    finding = (
        f"The layer with the largest error of {rung_label(shown)} is {isolated(worst)} "
        f"({number(float(last.max()))})."
    )
    return Figure(
        "layers",
        f"Relative Frobenius error by layer and rung. {finding}",
        f"Error of each layer's own block; what lies between layers is the cross-layer step. "
        f"{finding}",
        partial(plot_layers, study.tree),
        Table("layers", "Error by layer", ("layer", *map(rung_label, rungs)), rows),
    )


def _queries(study: Study, change: xr.DataArray, protocol: str) -> Figure:
    worse = float((change > 0).mean())
    finding = (
        f"{100 * worse:.0f}% of the queries lose; the mean is {fixed(float(change.mean()))}, the "
        f"largest loss {fixed(float(change.max()))}."
    )
    rows = tuple(
        (str(q), float(v))
        for q, v in zip(change["query"].values.tolist(), change.values.tolist(), strict=True)
    )
    return Figure(
        "queries",
        f"LDS lost from the Hessian to K-FAC, query by query. {finding}",
        f"Each query's own LDS is noisy: the spread holds sampling error too. {finding}",
        partial(plot_queries, study.tree, protocol=protocol),
        Table("queries", "LDS lost by query", ("query", "LDS lost"), rows),
    )


def _ranked(change: xr.DataArray) -> list[object]:
    return change["query"].values[np.argsort(-change.values, kind="stable")].tolist()


def _table(study: Study, change: xr.DataArray) -> Table:
    targets = study.array("/examples", "query_targets")
    rows: list[tuple[Cell, ...]] = []
    for query in _ranked(change)[:8]:
        label = "–"
        if targets is not None and query in targets["query"].values:
            label = str(targets.sel(query=query).item())
        rows.append((str(query), label, float(change.sel(query=query))))
    caption = "The queries that lose most from the Hessian to K-FAC"
    return Table("worst-queries", caption, ("query", "label", "LDS lost"), tuple(rows))


def _galleries(study: Study, change: xr.DataArray | None) -> list[Block]:
    data, top = study.group("/examples"), study.array("/top", "top_train")
    if data is None or top is None or not {"train_inputs", "query_inputs"} <= set(data.data_vars):
        return []
    shape = json.loads(data.attrs.get("display", "{}")).get("image_shape")
    if not shape or int(np.prod(shape)) != data.sizes["feature"]:
        return []
    known = set(data["query"].values.tolist()) & set(top["query"].values.tolist())
    order = _ranked(change) if change is not None else top["query"].values.tolist()
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
