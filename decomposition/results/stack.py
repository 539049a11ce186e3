"""Several results as one of many cells: problems, checkpoints or seeds side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from decomposition.results.schema import CELL, SCHEMA_VERSION, group_of
from decomposition.shares.recommendation import recommendation_group

POOLED = (
    "/claims",
    "/claims/map",
    "/claims/map/absolute",
    "/regret",
    "/recommendation",
    "/residual_lds",
    "/trends",
)
"""Groups over cells: those of one result say nothing of others."""
ABOUT = {"parameters": "parameters", "examples": "examples_used", "queries": "queries"}
"""Attribute of a result's root → variable of ``/cells``."""
LEVEL = 0.95
"""Coverage of intervals over results that were computed with different ones."""
FILL: dict[str, Any] = {"f": np.nan, "i": 0, "u": 0, "b": False}
"""Kind of NumPy dtype → what stands where a result holds nothing; text is empty."""

Part = tuple[str, xr.DataTree, dict[str, xr.Dataset]]
"""Label, the result that a cell comes from, and its groups without the dimension of cells."""


def stack(trees: Sequence[xr.DataTree]) -> xr.DataTree:
    """Every cell of every result as a cell of one.

    A place that only some results have (a rung, a damping) is unknown in the others. Groups that
    many cells cannot share stay in the results; ``/claims`` and ``/trends`` are of other cells.
    """
    parts = _labelled([part for tree in trees for part in _parts(tree)])
    paths = dict.fromkeys(path for *_, groups in parts for path in groups)
    found: dict[str, xr.Dataset] = {}
    for path in sorted(paths, key=lambda path: path.count("/")):  # parents first
        above = found.get(path.rpartition("/")[0], xr.Dataset())
        found[path] = _concat([groups.get(path) for *_, groups in parts], above)
    about = found.get("/cells", xr.Dataset(coords={CELL: np.arange(len(parts))}))
    found["/cells"] = about.assign_coords(label=(CELL, [label for label, *_ in parts]))
    if "/shares" in found:
        verdicts = {
            str(i): json.loads(groups["/shares"].attrs.get("verdict", "{}"))
            for i, (*_, groups) in enumerate(parts)
            if "/shares" in groups
        }
        found["/shares"].attrs["verdict"] = json.dumps(verdicts)
    attributes = _attributes(parts)
    advice = recommendation_group(trees, float(attributes.get("ci_level", LEVEL)))
    if advice is not None:
        found["/recommendation"] = advice
    stacked = xr.DataTree.from_dict(found)
    stacked.attrs = attributes
    return stacked


def _parts(tree: xr.DataTree) -> list[Part]:
    groups: dict[str, xr.Dataset] = {}
    for node in tree.subtree:
        group = group_of(node.path)
        if node.data_vars and group is not None and group.stacked and group.path not in POOLED:
            groups[node.path] = node.to_dataset(inherit=True)
    about = groups.setdefault("/cells", xr.Dataset())
    if not any(CELL in data.dims for data in groups.values()):
        known = {new: int(tree.attrs[old]) for old, new in ABOUT.items() if old in tree.attrs}
        groups["/cells"] = about.assign({n: v for n, v in known.items() if n not in about})
        return [(str(tree.attrs.get("problem", "")), tree, groups)]
    count = next(data.sizes[CELL] for data in groups.values() if CELL in data.dims)
    cells = [
        {p: data.isel({CELL: i}, drop=True) if CELL in data.dims else data
         for p, data in groups.items()}
        for i in range(count)
    ]  # fmt: skip
    names = about["label"].values.tolist() if "label" in about.coords else [""] * count
    return [(str(name), tree, cell) for name, cell in zip(names, cells, strict=True)]


def _labelled(parts: list[Part]) -> list[Part]:
    """Equal labels are numbered."""
    names = [name for name, *_ in parts]
    return [
        (f"{name} ({i})" if names.count(name) > 1 else name, tree, groups)
        for i, (name, tree, groups) in enumerate(parts, start=1)
    ]


def _concat(cells: Sequence[xr.Dataset | None], above: xr.Dataset) -> xr.Dataset:
    """One group of all cells, on every label that any of them has, and those of its parent."""
    known = [data.reset_coords(drop=True) for data in cells if data is not None]
    dims = dict.fromkeys(str(dim) for data in known for dim in data.dims)
    index = {
        dim: above.indexes[dim].tolist()
        if dim in above.indexes
        else _union([data.indexes[dim] for data in known if dim in data.indexes])
        for dim in dims
    }
    every = {str(name): array for data in known for name, array in data.data_vars.items()}
    whole = []
    for data in cells:
        here = xr.Dataset() if data is None else data.reset_coords(drop=True)
        missing = {
            name: (array.dims, np.full([len(index[str(d)]) for d in array.dims], _fill(array)))
            for name, array in every.items()
            if name not in here
        }
        fill = {str(name): _fill(array) for name, array in here.data_vars.items()}
        labels = {str(dim): index[str(dim)] for dim in here.dims}
        whole.append(here.reindex(labels, fill_value=fill).assign(missing).assign_coords(index))
    numbers = xr.IndexVariable(CELL, np.arange(len(cells)))
    together: Any = {"data_vars": "all", "coords": "minimal", "compat": "override"}
    return xr.concat(whole, numbers, join="exact", combine_attrs="drop_conflicts", **together)


def _union(indexes: Sequence[Any]) -> list[Any]:
    """Every label, as met; numbers in order."""
    labels = list(dict.fromkeys(label for index in indexes for label in index.tolist()))
    return sorted(labels) if all(isinstance(label, int | float) for label in labels) else labels


def _fill(array: xr.DataArray) -> Any:
    return FILL.get(array.dtype.kind, "")


def _attributes(parts: Sequence[Part]) -> dict[str, Any]:
    trees = list({id(tree): tree for _, tree, _ in parts}.values())
    levels = {tree.attrs.get("ci_level") for tree in trees} - {None}
    notes = [
        f"{label}: {note}"
        for label, tree, _ in parts
        for note in json.loads(tree.attrs.get("notes", "[]"))
    ]
    commands = dict.fromkeys(str(tree.attrs.get("command", "")) for tree in trees)
    return {
        "schema_version": SCHEMA_VERSION,
        "created_at": max(str(tree.attrs.get("created_at", "")) for tree in trees),
        "library_version": str(trees[0].attrs.get("library_version", "")),
        "command": "\n".join(commands),
        "config": json.dumps(
            {label: json.loads(tree.attrs.get("config", "{}")) for label, tree, _ in parts}
        ),
        "notes": json.dumps(list(dict.fromkeys(notes)), ensure_ascii=False),
        "title": f"{len(parts)} results side by side",
        **({"ci_level": levels.pop()} if len(levels) == 1 else {}),
    }
