"""Group /residual_lds: does the residual of a rung's inverse (Eq. 9) tell its LDS?

A point is a rung of the chain at one λ in a cell, with its residual and its LDS there. Spearman's
ρ is taken over all points; over those of one λ; and, at one λ, over the rungs of every cell by
itself, then averaged: cells differ in how well anything can be predicted, which the first two mix
with what is asked. −1: the smaller residual always has the higher LDS.

Points of one network hang together, so whole networks are resampled, with all rungs, λ,
checkpoints and inversions of theirs. Of fewer than three no distribution can be told: then whole
rungs are, with all λ and cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.names import CHAIN, CI_BOUNDS
from decomposition.scores.bootstrap import Draws
from decomposition.scores.ranks import correlation, rank
from decomposition.shares.claims_map import inversion_of
from decomposition.shares.prediction import SMALLEST, spectral_association
from decomposition.spectrum.residuals import RESIDUALS

RESAMPLES = 2000
NETWORK = "network"
"""Attribute of a cell's tree that is the same for cells of one training."""


def residual_lds_group(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """Rank correlations of residual and LDS over rungs, λ and cells; None where a cell has neither.

    Args:
        trees: of ``pipeline.compute_cell``.
        level: coverage of the intervals.
    """
    found = [_points(tree) for tree in trees]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    data = xr.concat(known, "cell", join="inner")
    if not data.sizes["multiplier"]:
        return None
    lds = data["level"].transpose("cell", "multiplier", "rung").values
    cells, dampings, rungs = lds.shape
    network = networks(trees)
    by_cell = len(set(network)) >= SMALLEST
    unit = np.array(network)[:, None, None] if by_cell else np.arange(rungs)
    unit = np.broadcast_to(unit, lds.shape)
    every, at = np.full((len(RESIDUALS), 3), np.nan), np.full((len(RESIDUALS), dampings, 3), np.nan)
    mean, own = at.copy(), np.full((cells, len(RESIDUALS), dampings), np.nan)
    for row, metric in enumerate(RESIDUALS):
        x = data["residual"].sel(metric=metric).transpose("cell", "multiplier", "rung").values
        every[row] = _rho(x, lds, unit, level)
        for j in range(dampings):
            at[row, j] = _rho(x[:, j], lds[:, j], unit[:, j], level)
            own[:, row, j] = [_of_one(a, b) for a, b in zip(x[:, j], lds[:, j], strict=True)]
            if by_cell:
                mean[row, j] = _mean(own[:, row, j], np.array(network), level)
    table = ("metric", "multiplier", "ci_bound")
    return xr.Dataset(
        {
            "rho": (("metric", "ci_bound"), every),
            "rho_at_damping": (table, at),
            "rho_within_cells": (table, mean),
            "rho_of_cell": (("cell", "metric", "multiplier"), own),
            "points": ((), int(np.isfinite(lds).sum())),
        },
        {
            "cell": np.arange(cells),
            "metric": list(RESIDUALS),
            "multiplier": data["multiplier"].values,
            "ci_bound": list(CI_BOUNDS),
        },
        {"resampled": "cells" if by_cell else "rungs"},
    )


def _points(tree: xr.DataTree) -> xr.Dataset | None:
    """residual(metric, multiplier, rung) and level(multiplier, rung) of one cell."""
    if "levels" not in tree.children or "at_damping" not in tree["levels"].children:
        return None
    errors, levels = tree["spectral_error"].to_dataset(), tree["levels/at_damping"].to_dataset()
    if "damped_value" not in errors or not set(RESIDUALS) <= set(errors["metric"].values):
        return None
    grid = errors["damping"].values
    known = [
        bool(np.isclose(grid, one, rtol=1e-9, atol=0.0).any())
        for one in levels["damping_value"].values
    ]
    levels = levels.isel(multiplier=np.flatnonzero(known))
    at = errors["damped_value"].sel(metric=list(RESIDUALS), rung=list(CHAIN))
    at = at.sel(damping=levels["damping_value"].values, method="nearest")
    residual = at.rename(damping="multiplier").assign_coords(multiplier=levels["multiplier"].values)
    level = levels["estimate"].reindex(rung=list(CHAIN))  # NaN where a rung has no level
    return xr.Dataset({"residual": residual, "level": level.reset_coords(drop=True)})


def _rho(
    x: Float[np.ndarray, ...],
    lds: Float[np.ndarray, ...],
    unit: Float[np.ndarray, ...],
    level: float,
) -> Float[np.ndarray, " 3"]:
    known = np.isfinite(x) & np.isfinite(lds)
    if len(np.unique(unit[known])) < SMALLEST:
        return np.full(3, np.nan)
    found = spectral_association(x[known][None], lds[known], unit[known], RESAMPLES, level=level)
    return found.rho[0]


def _of_one(x: Float[np.ndarray, " rungs"], lds: Float[np.ndarray, " rungs"]) -> float:
    known = np.isfinite(x) & np.isfinite(lds)
    if known.sum() < SMALLEST:
        return np.nan
    return float(correlation(rank(x[known]), rank(lds[known])))


def networks(trees: Sequence[xr.DataTree]) -> list[int]:
    """Which training each cell is of: one stands in a cell for every checkpoint and inversion.

    A study says it (``tree.attrs``); else cells of one inversion are of as many.
    """
    inversions = [inversion_of(tree) for tree in trees]
    numbers = [inversions[:i].count(one) for i, one in enumerate(inversions)]
    keys = [str(tree.attrs.get(NETWORK, i)) for tree, i in zip(trees, numbers, strict=True)]
    return [keys.index(key) for key in keys]


def _mean(
    own: Float[np.ndarray, " cells"], network: Int[np.ndarray, " cells"], level: float
) -> Float[np.ndarray, " 3"]:
    known = np.isfinite(own)
    own, network = own[known], network[known]
    own = np.array([own[network == one].mean() for one in np.unique(network)])
    if len(own) < SMALLEST:
        return np.full(3, np.nan)
    picks = np.random.default_rng(43).integers(0, len(own), (RESAMPLES, len(own)))
    return Draws(np.array(own.mean()), own[picks].mean(1)).interval(level)
