"""Many cells as one result: their groups with ``cell`` in front, then what is said over cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from decomposition.chain.paper_protocol import LADDERS
from decomposition.names import CI_BOUNDS
from decomposition.results.schema import CELL, GROUPS
from decomposition.scores.levels import Levels, read_levels, shared_protocols
from decomposition.shares.group import share_groups
from decomposition.shares.over_cells import over_cells
from decomposition.shares.residual_lds import NETWORK
from decomposition.shares.steps import drops, shares_of
from decomposition.study.cell import Cell, shape_of
from decomposition.study.trends import trends_group

STACKED = tuple(group.path for group in GROUPS if group.stacked)
"""Groups that cells share; a path with {block} stands for each block's."""


def combine(
    cells: Sequence[Cell], trees: Sequence[xr.DataTree], factor: str, level: float = 0.95
) -> dict[str, xr.Dataset]:
    """Group path → dataset over all cells, in their order.

    Args:
        cells: at least one.
        trees: what has been computed about each (``pipeline.compute_cell``).
        factor: the coordinate of ``/cells`` that the study varies, or ``grid``.
        level: coverage of the intervals.
    """
    trees = [tree.copy() for tree in trees]  # whose attributes are the caller's
    for cell, tree in zip(cells, trees, strict=True):
        tree.attrs[NETWORK] = _network(cell)
    own = [_groups(cell, tree) for cell, tree in zip(cells, trees, strict=True)]
    groups: dict[str, xr.Dataset] = {}
    paths = dict.fromkeys(path for groups in own for path in groups)
    for path in sorted(paths, key=lambda path: path.count("/")):  # parents first
        above = groups.get(path.rpartition("/")[0], xr.Dataset())
        groups[path] = _stacked([one.get(path) for one in own], above)
    groups["/cells"] = groups["/cells"].assign_coords(coordinates(cells))
    over = {
        "/trends": trends_group(cells, trees, factor, level),
        "/protocol_ladder": ladder_group(trees, level),
    }
    groups |= over_cells(trees, level)
    return groups | {path: group for path, group in over.items() if group is not None}


def _groups(cell: Cell, tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """What one cell shares with others: measured, and made of it as ``run`` does."""
    every = {node.path: node.to_dataset(inherit=True) for node in tree.subtree}
    found = {path: data[list(data.data_vars)] for path, data in every.items()}
    found |= share_groups(tree, cell.settings)
    return {path: data for path, data in found.items() if _is_stacked(path) and data.data_vars}


def _network(cell: Cell) -> str:
    """What a training is: checkpoints and inversions of one agree in it."""
    training = replace(cell.training, checkpoint=None)
    data = cell.settings.alpha, cell.settings.randomness
    return repr((cell.dataset, cell.variant, training, cell.seed, data))


def _is_stacked(path: str) -> bool:
    return path in STACKED or f"{path.rpartition('/')[0]}/{{block}}" in STACKED


def _stacked(cells: Sequence[xr.Dataset | None], above: xr.Dataset) -> xr.Dataset:
    """Data sets along ``cell``; NaN (or 0, or no text) where one lacks an entry.

    A child group has the labels of the group ``above`` it, whichever cells have its block.
    """
    there = {i: data for i, data in enumerate(cells) if data is not None}
    union: dict[str, list] = {}
    for data in there.values():
        for dim in map(str, data.dims):
            inherited = above[dim].values.tolist() if dim in above.dims else []
            known = union.get(dim, inherited)
            union[dim] = list(dict.fromkeys([*known, *data[dim].values.tolist()]))
    aligned = [
        data.reindex(union, fill_value=_nothing(data)).expand_dims({CELL: [i]})
        for i, data in there.items()
    ]
    found = xr.concat(
        aligned,
        CELL,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="drop_conflicts",
    )
    verdicts = {str(i): one.attrs["verdict"] for i, one in there.items() if "verdict" in one.attrs}
    if verdicts:
        text = json.dumps({i: json.loads(one) for i, one in verdicts.items()})
        found.attrs["verdict"] = text
    return found.reindex({CELL: np.arange(len(cells))}, fill_value=_nothing(found))


def _nothing(data: xr.Dataset) -> dict[str, object]:
    """Variable → what stands for an entry that is not there."""
    kinds = {"f": np.nan, "i": 0, "u": 0, "b": False}
    return {
        str(name): kinds.get(array.dtype.kind, "")
        for name, array in data.variables.items()
        if name not in data.dims
    }


def coordinates(cells: Sequence[Cell]) -> dict[str, tuple[str, list]]:
    """What tells cells apart, as coordinates along ``cell``; 0 or nothing where it is not known."""
    columns: dict[str, Callable[[Cell], object]] = {
        "label": lambda cell: cell.label,
        "dataset": lambda cell: cell.dataset,
        "hidden": lambda cell: shape_of(cell.variant),
        "depth": lambda cell: len(cell.variant.hidden or ()),
        "width": lambda cell: max(cell.variant.hidden or (0,)),
        "activation": lambda cell: cell.variant.activation or "",
        "epoch": lambda cell: cell.training.last_epoch,
        "momentum": lambda cell: cell.momentum,
        "seed": lambda cell: cell.seed,
        "alpha": lambda cell: cell.settings.alpha,
        "randomness": lambda cell: cell.settings.randomness,
        "target": lambda cell: cell.settings.target,
        "examples": lambda cell: cell.variant.examples or 0,
        "label_noise": lambda cell: cell.variant.label_noise,
    }
    return {name: (CELL, [get(cell) for cell in cells]) for name, get in columns.items()}


def ladder_group(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """``/protocol_ladder``: what each choice of the paper's protocol costs, one change at a time.

    Drop and share of every step of every ladder in every cell; None without their rungs.
    """
    nodes = {n for ladder in LADDERS.values() for step in ladder for n in (step.before, step.after)}
    read = read_levels(trees)
    if read is None or not all(nodes <= set(levels.nodes) for levels in read):
        return None
    protocols = shared_protocols(read)
    found = [[_ladders(levels, protocol, level) for protocol in protocols] for levels in read]
    names = [(rung, step.name) for rung, ladder in LADDERS.items() for step in ladder]
    table = (CELL, "protocol", "ladder_step", "ci_bound")
    return xr.Dataset(
        {
            "drop": (table, np.array([[pair[0] for pair in row] for row in found])),
            "share": (table, np.array([[pair[1] for pair in row] for row in found])),
        },
        {
            CELL: np.arange(len(trees)),
            "protocol": protocols,
            "ladder_step": [f"{rung}: {step}" for rung, step in names],
            "ladder_of": ("ladder_step", [rung for rung, _ in names]),
            "ci_bound": list(CI_BOUNDS),
        },
    )


def _ladders(levels: Levels, protocol: str, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Drops and shares (ladder steps, 3); shares are in the total of their own ladder."""
    of = levels.of(protocol)
    results = [
        shares_of(drops(of, levels.nodes, ladder), tuple(step.name for step in ladder), level)
        for ladder in LADDERS.values()
    ]
    return (
        np.concatenate([result.drop for result in results]),
        np.concatenate([result.share for result in results]),
    )
