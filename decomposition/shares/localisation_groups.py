"""Groups /where/…: in which layers, spectral bands and queries a step's loss lives.

A block-diagonal rung's prediction is a sum over layers, and every diagonalised rung's a sum over
its eigenvectors; replacing one part at a time, from the node before a step to the node after it,
gives contributions that telescope to the step's total. Each node is read at its ``tuned`` damping,
without cross-fitting, so the totals here differ from those of /shares within their intervals.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.chain import CHAIN, STEPS
from decomposition.chain.step import Step
from decomposition.linalg import to_numpy
from decomposition.results.schema import CI_BOUNDS
from decomposition.scores.bootstrap import Resamples, bootstrap
from decomposition.scores.linearised import linearise
from decomposition.scores.scorer import Scorer, SpectralScorer
from decomposition.scores.selection import Measured, Selection
from decomposition.settings import Settings
from decomposition.shares.localisation import path_decomposition, query_drops

BLOCKWISE = (
    Step("linearisation", "block_hessian", "block_ggn"),
    Step("eigenbasis", "block_ggn", "ekfac"),
    Step("eigenvalues", "ekfac", "kfac"),
)
"""Steps that can be taken layer by layer, between block-diagonal nodes."""
BAND_EDGES = (0, 10, 30, 100, 300, 1000, 3000, 10000, 30000)
"""Ranks, by eigenvalue magnitude, at which one spectral band ends and the next begins."""


def where_groups(
    scorers: Mapping[str, Scorer],
    measured: Measured,
    selection: Selection,
    blocks: Mapping[str, slice],
    folds: Int[np.ndarray, " M"],
    weights: Resamples,
    settings: Settings,
) -> dict[str, xr.Dataset]:
    """Group path → dataset, for whatever nodes are there."""
    dampings = selection.dampings["tuned"]
    steps = [Step(name, *pair) for name, pair in zip(STEPS, itertools.pairwise(CHAIN), strict=True)]
    groups: dict[str, xr.Dataset] = {}
    known = [step for step in steps if {step.before, step.after} <= set(selection.nodes)]
    if known:
        groups["/where/queries"] = _queries(known, measured, selection, folds, weights, settings)
    layered = [step for step in BLOCKWISE if _spectral(scorers, step)]
    if layered:
        groups["/where/layers"] = _parts(
            layered,
            {name: list(blocks.values()) for name in scorers},
            list(blocks),
            "block",
            scorers,
            measured,
            dampings,
            weights,
            settings,
        )
    banded = [step for step in steps if _spectral(scorers, step)]
    if banded:
        size = _size(scorers[banded[0].before])
        edges = [e for e in BAND_EDGES if e < size] + [size]
        names = [f"{a + 1}–{b}" for a, b in itertools.pairwise(edges)]
        bands = {name: _bands(rung, edges) for name, rung in scorers.items() if rung.mu is not None}
        groups["/where/bands"] = _parts(
            banded, bands, names, "band", scorers, measured, dampings, weights, settings
        )
    return groups


def _spectral(scorers: Mapping[str, Scorer], step: Step) -> bool:
    return all(isinstance(scorers.get(node), SpectralScorer) for node in (step.before, step.after))


def _size(rung: Scorer) -> int:
    assert rung.mu is not None
    return len(rung.mu)


def _bands(rung: Scorer, edges: Sequence[int]) -> list[Int[np.ndarray, " band"]]:
    """Basis indices of each band, by rank of the eigenvalue's magnitude."""
    assert rung.mu is not None
    order = to_numpy(rung.mu.abs().argsort(descending=True, stable=True))
    return [order[a:b] for a, b in itertools.pairwise(edges)]


def _parts(
    steps: Sequence[Step],
    subsets: Mapping[str, Sequence],
    names: Sequence[str],
    axis: str,
    scorers: Mapping[str, Scorer],
    measured: Measured,
    dampings: Mapping[str, float],
    weights: Resamples,
    settings: Settings,
) -> xr.Dataset:
    """Contribution of every part to every step, swapped in the order of ``names``."""
    contribution, total, remainder = [], [], []
    truth = measured.mean
    for step in steps:
        before, after = (
            _partial(scorers[node], measured, dampings[node], subsets[node], settings)
            for node in (step.before, step.after)
        )
        path = _swap_one_by_one(before, after)
        found = path_decomposition(
            bootstrap(linearise(path, truth), weights), tuple(names), settings.level
        )
        contribution.append(found.contribution)
        total.append(found.total)
        remainder.append(found.remainder)
    return xr.Dataset(
        {
            "contribution": (("step", axis, "ci_bound"), np.stack(contribution)),
            "total": (("step", "ci_bound"), np.stack(total)),
            "remainder": (("step", "ci_bound"), np.stack(remainder)),
        },
        {"step": [step.name for step in steps], axis: list(names), "ci_bound": list(CI_BOUNDS)},
    )


def _partial(
    rung: Scorer, measured: Measured, damping: float, subsets: Sequence, settings: Settings
) -> Float[np.ndarray, "K M Q"]:
    assert isinstance(rung, SpectralScorer)
    return rung.partial_effects(measured.masks, damping, subsets, settings.negative)


def _swap_one_by_one(
    before: Float[np.ndarray, "K M Q"], after: Float[np.ndarray, "K M Q"]
) -> Float[np.ndarray, "K1 M Q"]:
    """Predictions with parts 1 … k taken from ``after``, for k = 0 … K."""
    start = before.sum(0)
    return start + np.concatenate([np.zeros_like(start)[None], np.cumsum(after - before, axis=0)])


def _queries(
    steps: Sequence[Step],
    measured: Measured,
    selection: Selection,
    folds: np.ndarray,
    weights: Resamples,
    settings: Settings,
) -> xr.Dataset:
    """Drop of every query at every step, at the dampings of protocol ``tuned``, cross-fitted."""
    chosen = selection.chosen["tuned"]
    drops, degraded, improved = [], [], []
    for step in steps:
        before, after = (chosen[selection.nodes.index(n)] for n in (step.before, step.after))
        found = query_drops(before, after, measured.mean, weights, folds, level=settings.level)
        drops.append(found.drop)
        degraded.append(found.degraded)
        improved.append(found.improved)
    return xr.Dataset(
        {
            "drop": (("step", "query", "ci_bound"), np.stack(drops)),
            "degraded": ("step", np.array(degraded)),
            "improved": ("step", np.array(improved)),
        },
        {
            "step": [step.name for step in steps],
            "query": np.arange(measured.truth.shape[2]),
            "ci_bound": list(CI_BOUNDS),
        },
    )
