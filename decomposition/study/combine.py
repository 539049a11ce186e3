"""Many cells as one result: every quantity of ``/cells``, then claims, trends and the ladder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from decomposition.chain import CHAIN, STEPS
from decomposition.results.schema import CI_BOUNDS
from decomposition.scores.bootstrap import Draws
from decomposition.shares.lattice import CURVATURE, drops_by_order, shapley
from decomposition.shares.steps import CHAIN as CHAIN_STEPS
from decomposition.shares.steps import drops, shares_of
from decomposition.study.cell import shape_of
from decomposition.study.ladder import ladder_group
from decomposition.study.scored import ScoredCell
from decomposition.study.trends import trends_group
from decomposition.study.verdicts import claims_group

SCALARS = ("train_loss", "query_loss", "query_accuracy")


def combine(cells: Sequence[ScoredCell], factor: str, level: float = 0.95) -> dict[str, xr.Dataset]:
    """Group path → dataset over all cells, in their order.

    Args:
        cells: at least one, all with the same protocols.
        factor: the coordinate of ``/cells`` that the study varies, or ``grid``.
        level: coverage of the intervals.
    """
    groups = {"/cells": _cells(cells, level), "/claims": claims_group(cells, level)}
    trends = trends_group(cells, factor, level)
    if trends is not None:
        groups["/trends"] = trends
    ladder = ladder_group(cells, level)
    if ladder is not None:
        groups["/ladder"] = ladder
    return groups


def coordinates(cells: Sequence[ScoredCell]) -> dict[str, tuple[str, list]]:
    """What tells cells apart, as coordinates along ``cell``."""
    columns: dict[str, Callable[[ScoredCell], object]] = {
        "label": lambda one: one.cell.label,
        "dataset": lambda one: one.cell.dataset,
        "hidden": lambda one: shape_of(one.cell.variant),
        "depth": lambda one: len(one.cell.variant.hidden or ()),
        "width": lambda one: max(one.cell.variant.hidden or (0,)),
        "activation": lambda one: one.cell.variant.activation or "",
        "epoch": lambda one: one.cell.recipe.last_epoch,
        "seed": lambda one: one.cell.seed,
        "alpha": lambda one: one.cell.settings.alpha,
        "randomness": lambda one: one.cell.settings.randomness,
        "target": lambda one: one.cell.settings.target,
        "examples": lambda one: one.cell.variant.examples or 0,
        "label_noise": lambda one: one.cell.variant.label_noise,
        "parameters": lambda one: int(one.errors["parameters"]),
    }
    return {name: ("cell", [get(one) for one in cells]) for name, get in columns.items()}


def _cells(cells: Sequence[ScoredCell], level: float) -> xr.Dataset:
    protocols = cells[0].protocols
    rungs = list(dict.fromkeys(rung for one in cells for rung in one.rungs))
    stacked = [_one(one, protocols, rungs, level) for one in cells]
    data = xr.concat(stacked, "cell", coords="minimal", compat="override", join="exact")
    return data.assign_coords({"cell": np.arange(len(cells)), **coordinates(cells)})


def _one(
    one: ScoredCell, protocols: Sequence[str], rungs: Sequence[str], level: float
) -> xr.Dataset:
    """Every quantity of one cell."""
    rows: dict[str, list[np.ndarray]] = {k: [] for k in ("level", "drop", "share", "total")}
    order_free, undefined = [], np.full((len(STEPS), 3), np.nan)
    for protocol in protocols:
        levels = one.levels(protocol)
        rows["level"].append(levels.interval(level))
        result = shares_of(drops(levels, one.rungs, CHAIN_STEPS), STEPS, level)
        for name in ("drop", "share", "total"):
            rows[name].append(getattr(result, name))
        order_free.append(
            _shapley(one.levels(protocol, list(CURVATURE.taken)), level)
            if set(CURVATURE.taken) <= set(one.rungs)
            else undefined
        )
    table = ("protocol", "step", "ci_bound")
    data = xr.Dataset(
        {
            "level": (("protocol", "rung", "ci_bound"), np.stack(rows["level"])),
            "drop": (table, np.stack(rows["drop"])),
            "share": (table, np.stack(rows["share"])),
            "shapley": (table, np.stack(order_free)),
            "total": (("protocol", "ci_bound"), np.stack(rows["total"])),
        },
        {
            "protocol": list(protocols),
            "rung": list(one.rungs),
            "step": list(STEPS),
            "ci_bound": list(CI_BOUNDS),
        },
    )
    for name in ("ceiling", "reliability"):
        draws = one.single(name)
        data[name] = ("ci_bound", np.full(3, np.nan) if draws is None else draws.interval(level))
    errors = one.errors
    for name in ("frobenius_share", "frobenius_error", "inverse_error", "damping"):
        data[name] = errors[name]
    for name in SCALARS:
        data[name] = ((), float(errors[name]) if name in errors else np.nan)
    return data.merge(_at_dampings(one, level)).reindex(rung=list(rungs))


def _shapley(levels: Draws, level: float) -> np.ndarray:
    """Order-independent shares (S, 3); NaN where the total is within noise."""
    value = shapley(drops_by_order(levels, list(CURVATURE.taken)))
    return shares_of(value, STEPS, level).share


def _at_dampings(one: ScoredCell, level: float) -> xr.Dataset:
    """Levels and drops at one λ for all rungs, λ in multiples of tr G / min(P, N·C)."""
    levels = one.at_dampings()
    shape = levels.estimate.shape
    multipliers = one.multipliers
    per_damping = [drops(levels[i], CHAIN, CHAIN_STEPS).interval(level) for i in range(shape[0])]
    return xr.Dataset(
        {
            "level_at": (("multiplier", "chain_rung", "ci_bound"), levels.interval(level)),
            "drop_at": (("multiplier", "step", "ci_bound"), np.stack(per_damping)),
        },
        {
            "multiplier": multipliers,
            "chain_rung": list(CHAIN),
            "step": list(STEPS),
            "ci_bound": list(CI_BOUNDS),
        },
    )
