"""Where a step's loss lives: in which layer, which band of the spectrum, which query.

A block-diagonal rung's prediction is a sum over layers, and that of a rung with an eigenbasis a
sum over its eigenvectors. Swapping parts one after the other, part k on top of those before it,
from the node before a step to the node after it, gives contributions that telescope to the step's
drop; what is missing is the remainder. Over queries the drop is a mean, so single queries add up.
Layers and bands are read at each node's ``tuned`` damping, without cross-fitting, so the totals
here differ from those of /shares within their intervals.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from decomposition.chain import CHAIN, STEPS
from decomposition.linalg import product, to_numpy
from decomposition.names import CI_BOUNDS, Step
from decomposition.scores.bootstrap import Draws, Resamples, bootstrap
from decomposition.scores.effects import Effects, known
from decomposition.scores.lds import check_prediction, fold_members, linearise, linearised_query
from decomposition.scores.ranks import Floats
from decomposition.scores.selection import Selection
from decomposition.shares.steps import ShareError


@dataclass(frozen=True)
class Parts:
    """A step's drop split over parts; the last axis is lower, estimate, upper."""

    names: tuple[str, ...]
    contribution: NDArray[np.float64]
    """(K, 3)."""
    total: NDArray[np.float64]
    """(3,) the step's drop."""
    remainder: NDArray[np.float64]
    """(3,) total minus the sum of the contributions."""


def path_decomposition(levels: Draws, names: tuple[str, ...], level: float = 0.95) -> Parts:
    """Parts swapped one after the other: levels (K+1,) → contributions that sum to the total.

    The first level is the node before the step, the last the node after it. The remainder is
    zero up to rounding.

    Raises:
        ShareError: the number of levels is not one more than the number of names.
    """
    if levels.estimate.shape != (len(names) + 1,):
        raise ShareError(
            f"{len(names)} swaps need {len(names) + 1} levels, got {levels.estimate.shape}"
        )
    count = len(names)
    matrix = np.eye(count, count + 1) - np.eye(count, count + 1, k=1)
    total = levels[0].minus(levels[-1])
    return _parts(levels.combine(matrix), total, names, level)


def _parts(contribution: Draws, total: Draws, names: tuple[str, ...], level: float) -> Parts:
    summed = Draws(contribution.estimate.sum(), contribution.draws.sum(-1))
    return Parts(
        names,
        contribution.interval(level),
        total.interval(level),
        total.minus(summed).interval(level),
    )


@dataclass(frozen=True)
class QueryDrops:
    """A step's drop query by query; the mean over queries is the step's drop."""

    drop: NDArray[np.float64]
    """(Q, 3) lower, estimate, upper, from resampled masks; NaN where undefined."""
    most_changed: NDArray[np.intp]
    """(k,) queries with the largest |drop|, largest first."""
    degraded: float
    """Fraction of defined queries whose interval lies above zero."""
    improved: float
    """Fraction of defined queries whose interval lies below zero."""


def query_drops(
    before: Floats,
    after: Floats,
    truth: Floats,
    weights: Resamples,
    folds: NDArray[np.integer] | None = None,
    most: int = 10,
    level: float = 0.95,
) -> QueryDrops:
    """Drop of every query between predictions `before` and `after` (M, Q), truth (M, Q).

    Intervals hold for single queries: with many queries some exclude zero by chance, at most
    a fraction 1 − level where nothing changed.

    Raises:
        ScoreError: shapes differ or a value is not finite.
    """
    both = np.stack([before, after])
    check_prediction(both, truth)
    members = fold_members(folds, len(truth))
    masks, queries = truth.shape
    drop = np.empty(queries)
    effect = np.empty((masks, queries))
    for query in range(queries):
        value, psi = linearised_query(both[:, :, query], truth[:, query], members)
        drop[query] = value[0] - value[1]
        effect[:, query] = psi[0] - psi[1]
    draws = drop + product(weights.masks - 1.0, effect) / masks
    interval = Draws(drop, draws).interval(level)
    order = np.argsort(-np.nan_to_num(np.abs(drop), nan=-1.0), kind="stable")
    defined = max(1, int((~np.isnan(drop)).sum()))
    return QueryDrops(
        interval,
        order[:most],
        float((interval[:, 0] > 0).sum() / defined),
        float((interval[:, 2] < 0).sum() / defined),
    )


BLOCKWISE = (
    Step("linearisation", "block_hessian", "block_ggn"),
    Step("eigenbasis", "block_ggn", "ekfac"),
    Step("eigenvalues", "ekfac", "kfac"),
)
"""Steps that can be taken layer by layer, between block-diagonal nodes."""
BAND_EDGES = (0, 10, 30, 100, 300, 1000, 3000, 10000, 30000)
"""Ranks, by eigenvalue magnitude, at which one spectral band ends and the next begins."""


def where_groups(
    effects: Effects,
    selection: Selection,
    blocks: Mapping[str, slice],
    folds: Int[np.ndarray, " M"],
    weights: Resamples,
    level: float,
) -> dict[str, xr.Dataset]:
    """Group path → dataset, for whatever nodes are there, in whatever form.

    Layers are parts of every block-diagonal rung; bands of those with an eigenbasis.
    """
    steps = [Step(name, *pair) for name, pair in zip(STEPS, itertools.pairwise(CHAIN), strict=True)]
    nodes = set(selection.nodes)
    groups: dict[str, xr.Dataset] = {}
    there = [step for step in steps if {step.before, step.after} <= nodes]
    if there:
        groups["/where/queries"] = _queries(there, effects, selection, folds, weights, level)
    split = _Split(effects, selection.dampings["tuned"], weights, level)
    layered = [step for step in BLOCKWISE if {step.before, step.after} <= nodes]
    if layered:
        slices = {node: list(blocks.values()) for node in nodes}
        groups["/where/layers"] = split.over("block", list(blocks), slices, layered)
    mu = {name: rung.mu for name, rung in effects.scorers.items() if rung.mu is not None}
    banded = [step for step in steps if {step.before, step.after} <= nodes & set(mu)]
    if banded:
        size = len(mu[banded[0].before])
        edges = [e for e in BAND_EDGES if e < size] + [size]
        names = [f"{a + 1}–{b}" for a, b in itertools.pairwise(edges)]
        bands = {name: _bands(values, edges) for name, values in mu.items()}
        groups["/where/bands"] = split.over("band", names, bands, banded)
    return groups


def _bands(mu: Tensor, edges: Sequence[int]) -> list[Int[np.ndarray, " band"]]:
    """Basis indices of each band, by rank of the eigenvalue's magnitude."""
    order = to_numpy(mu.abs().argsort(descending=True, stable=True))
    return [order[a:b] for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True)
class _Split:
    """A step's loss in parts, each rung at its own damping."""

    effects: Effects
    dampings: Mapping[str, float]
    weights: Resamples
    level: float

    def over(
        self,
        axis: str,
        names: Sequence[str],
        subsets: Mapping[str, Sequence[np.ndarray | slice]],
        steps: Sequence[Step],
    ) -> xr.Dataset:
        """Contribution of every part to every step, swapped in the order of ``names``.

        Args:
            axis: what the parts are: block or band.
            names: of the parts.
            subsets: rung → indices of each part in its basis.
            steps: between rungs that have such parts.
        """
        contribution, total, remainder = [], [], []
        for step in steps:
            before, after = (
                self.effects.partial(node, self.dampings[node], subsets[node])
                for node in (step.before, step.after)
            )
            path = known(_swap_one_by_one(before, after))
            draws = bootstrap(linearise(path, self.effects.truth), self.weights)
            found = path_decomposition(draws, tuple(names), self.level)
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


def _swap_one_by_one(
    before: Float[np.ndarray, "K M Q"], after: Float[np.ndarray, "K M Q"]
) -> Float[np.ndarray, "K1 M Q"]:
    """Predictions with parts 1 … k taken from ``after``, for k = 0 … K."""
    start = before.sum(0)
    return start + np.concatenate([np.zeros_like(start)[None], np.cumsum(after - before, axis=0)])


def _queries(
    steps: Sequence[Step],
    effects: Effects,
    selection: Selection,
    folds: np.ndarray,
    weights: Resamples,
    level: float,
) -> xr.Dataset:
    """Drop of every query at every step, at the dampings of protocol ``tuned``, cross-fitted."""
    chosen = selection.chosen["tuned"]
    drops, degraded, improved = [], [], []
    for step in steps:
        before, after = (chosen[selection.nodes.index(n)] for n in (step.before, step.after))
        found = query_drops(before, after, effects.truth, weights, folds, level=level)
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
            "query": np.arange(effects.truth.shape[1]),
            "ci_bound": list(CI_BOUNDS),
        },
    )
