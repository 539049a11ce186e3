"""How levels, drops and shares change with the factor that a study varies.

The slope is that of least squares over the cells, resample by resample, so its interval carries
the masks and queries. With several seeds or architectures at each value of the factor, each group
has its own intercept: the trend is within groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from decomposition.chain import CHAIN, STEPS
from decomposition.names import CI_BOUNDS
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import Levels, read_draws, read_levels, shared_protocols
from decomposition.shares.steps import CHAIN as CHAIN_STEPS
from decomposition.shares.steps import contrasts
from decomposition.study.cell import Cell

Factor = Callable[[Cell], float]

FACTORS: dict[str, tuple[str, Factor]] = {
    "epoch": ("per doubling", lambda one: np.log2(one.training.last_epoch)),
    "width": ("per doubling", lambda one: np.log2(max(one.variant.hidden or (1,)))),
    "depth": ("per doubling", lambda one: np.log2(len(one.variant.hidden or (1,)))),
    "examples": ("per doubling", lambda one: np.log2(one.variant.examples or np.nan)),
    "alpha": ("per 0.1", lambda one: 10.0 * one.settings.alpha),
    "label_noise": ("per 0.1", lambda one: 10.0 * one.variant.label_noise),
}
"""Coordinate → unit of the slope, and the value of a cell on the axis of the regression."""
QUANTITIES = np.vstack([np.eye(len(CHAIN)), contrasts(CHAIN, CHAIN_STEPS)])
"""Levels of the chain → levels and drops."""
NAMES = (*(f"level {rung}" for rung in CHAIN), *(f"drop {step}" for step in STEPS))
IN_GRID = ("epoch", "width", "depth")
"""Factors of a grid: each is estimated within the others' levels."""


def trends_group(
    cells: Sequence[Cell], trees: Sequence[xr.DataTree], factor: str, level: float
) -> xr.Dataset | None:
    """Group ``/trends``: slopes of every level and drop; None if the factor takes one value.

    Args:
        cells: in any order.
        trees: what has been computed about each; None is said where one has no levels of the chain.
        factor: one of FACTORS, ``multiplier`` (the damping, within cells), or ``grid``.
        level: coverage of the intervals.
    """
    read = read_levels(trees)
    if read is None or not all(set(CHAIN) <= set(one.nodes) for one in read):
        return None
    if factor == "multiplier":
        return _of_damping([tree["levels/at_damping"].to_dataset() for tree in trees], level)
    chosen = IN_GRID if factor == "grid" else (factor,)
    parts = [part for name in chosen if (part := _of(cells, read, name, level)) is not None]
    return xr.concat(parts, "quantity") if parts else None


def _of(
    cells: Sequence[Cell], levels: Sequence[Levels], factor: str, level: float
) -> xr.Dataset | None:
    unit, value = FACTORS[factor]
    weights = _slope_weights(
        np.array([value(one) for one in cells]), [_group(one, factor) for one in cells]
    )
    if weights is None:
        return None
    slopes = {
        protocol: _weighted(
            [one.of(protocol, CHAIN).combine(QUANTITIES) for one in levels], weights
        )
        for protocol in shared_protocols(levels)
    }
    return _dataset(slopes, factor, factor, f"LDS {unit} of {factor}", level)


def _of_damping(cells: Sequence[xr.Dataset], level: float) -> xr.Dataset:
    """Slope per decade of the one λ of all rungs, within cells (``/levels/at_damping``)."""
    slopes = []
    for data in cells:
        weights = _slope_weights(np.log10(data["multiplier"].values), None)
        assert weights is not None
        levels = read_draws(data.sel(rung=list(CHAIN))).combine(QUANTITIES)
        slopes.append(
            Draws(
                np.tensordot(weights, levels.estimate, 1),
                np.einsum("m,bmq->bq", weights, levels.draws),
            )
        )
    mean = _weighted(slopes, np.full(len(cells), 1.0 / len(cells)))
    return _dataset({"equal": mean}, "multiplier", "damping", "LDS per decade of λ", level)


def _weighted(draws: Sequence[Draws], weights: NDArray[np.float64]) -> Draws:
    """Σ w_k y_k."""
    return Draws(
        np.tensordot(weights, np.stack([one.estimate for one in draws]), 1),
        np.tensordot(weights, np.stack([one.draws for one in draws]), 1),
    )


def _dataset(
    slopes: Mapping[str, Draws], factor: str, name: str, unit: str, level: float
) -> xr.Dataset:
    """The group of one factor; ``slopes`` by protocol."""
    intervals = [slope.interval(level) for slope in slopes.values()]
    p_values = [_two_sided(slope) for slope in slopes.values()]
    return xr.Dataset(
        {
            "slope": (("quantity", "protocol", "ci_bound"), np.stack(intervals, 1)),
            "p_value": (("quantity", "protocol"), np.stack(p_values, 1)),
            "factor": ("quantity", [factor] * len(NAMES)),
            "unit": ("quantity", [unit] * len(NAMES)),
        },
        {
            "quantity": [f"{quantity} by {name}" for quantity in NAMES],
            "protocol": list(slopes),
            "ci_bound": list(CI_BOUNDS),
        },
    )


def _slope_weights(x: NDArray[np.float64], groups: list | None) -> NDArray[np.float64] | None:
    """w with slope = Σ w_k y_k: least squares with one intercept per group; None without spread."""
    centred = np.array(x, dtype=float)
    labels = groups if groups is not None else [0] * len(x)
    for label in dict.fromkeys(labels):
        rows = [i for i, other in enumerate(labels) if other == label]
        centred[rows] -= centred[rows].mean()
    square = float(centred @ centred)
    return centred / square if np.isfinite(square) and square > 1e-12 else None


def _group(cell: Cell, factor: str) -> tuple[object, ...]:
    """Everything about a cell but the factor: cells that share it share an intercept."""
    recipe = cell.training
    hidden = cell.variant.hidden or ()
    facts = {
        "dataset": cell.dataset,
        "activation": cell.variant.activation,
        "depth": len(hidden),
        "width": max(hidden, default=0),
        # other sizes of the data train for other numbers of epochs, with as many updates
        "epoch": round(recipe.last_epoch / recipe.epochs, 2)
        if factor == "examples"
        else recipe.last_epoch,
        "examples": cell.variant.examples,
        "label_noise": cell.variant.label_noise,
        "momentum": cell.momentum,
        "alpha": cell.settings.alpha,
        "randomness": cell.settings.randomness,
        "inversion": cell.settings.inversion,
        "seed": cell.seed,
    }
    return tuple(value for name, value in facts.items() if name != factor)


def _two_sided(draws: Draws) -> NDArray[np.float64]:
    """Bootstrap p-value of no trend."""
    count = len(draws.draws)
    below, above = ((draws.draws <= 0).sum(0), (draws.draws >= 0).sum(0))
    return np.minimum(1.0, 2.0 * (1.0 + np.minimum(below, above)) / (1.0 + count))
