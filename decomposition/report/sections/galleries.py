"""Queries drawn beside the training examples that each rung ranks first for them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Gallery, Picture, PictureRow
from decomposition.report.palette import rung_label
from decomposition.report.study import Study, labels
from decomposition.report.wording import isolated, joined
from decomposition.results.schema import CHAIN

EXAMPLES_SHOWN = 5
"""Training examples drawn for each query and rung."""

QUERIES_SHOWN = 4
"""Queries drawn with their training examples."""


def galleries(study: Study, order: Sequence[object]) -> list[Block]:
    """A gallery for each of the first queries of ``order`` that the result can draw."""
    data, top = study.group("/examples"), study.array("/top", "top_train")
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
