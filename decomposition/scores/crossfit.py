"""Damping chosen on masks that do not score it: cross-fitting over mask folds.

For each fold of masks the setting is the one with the best mean LDS over the other folds, and
the level is the mean over folds of the held-out LDS. Under a *common* protocol (`equal`,
`relative`, `effective_dimension`) one setting serves all nodes, the optimum of the reference
node; under `tuned` every node has its own.

The bootstrap keeps the choice fixed. The level is then that of the settings chosen here, not
of a setting chosen afresh in every replication: at a node's own optimum the LDS is flat, so a
choice that moves changes the level to second order only; a node read at the optimum of
another inherits that optimum's uncertainty in first order, and its interval does not contain it.

Source: cross-fitting as in Chernozhukov et al. (2018), "Double/debiased machine learning".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.retraining.distinct import IN_A_HALF
from decomposition.scores.lds import ScoreError, fold_members, lds
from decomposition.scores.ranks import Floats


@dataclass(frozen=True)
class Choice:
    """The damping setting of every node in every fold, as positions on the grid."""

    index: NDArray[np.intp]
    """(F, nodes) the setting that scores fold f, chosen on the other folds."""
    edge: NDArray[np.bool_]
    """(nodes,) whether any fold's setting is the first or last of the grid."""


def mask_folds(masks: int, folds: int = 2, seed: tuple[int, ...] = (0,)) -> NDArray[np.intp]:
    """Fold number (M,) of every mask: a seeded random split into equal parts.

    The masks are distinct ones: equal masks on both sides would score what they chose.

    Raises:
        ScoreError: fewer than two folds, or fewer than three masks per fold.
    """
    if folds < 2 or masks < IN_A_HALF * folds:
        raise ScoreError(
            f"dampings are chosen on some masks and scored on others, in two or more parts of at "
            f"least {IN_A_HALF} masks each, got {folds} parts of {masks} masks: use more masks"
        )
    return np.random.default_rng((*seed, 29)).permutation(np.arange(masks) % folds)


def fold_lds(prediction: Floats, truth: Floats, folds: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean LDS within every fold: prediction (…, M, Q), truth (M, Q) → (F, …).

    Raises:
        ScoreError: a fold has fewer than two masks, or no query's truth varies within it.
    """
    members = fold_members(folds, len(truth))
    for one in members:
        if not np.ptp(truth[one], axis=0).any():
            raise ScoreError(
                f"what was measured is the same for {len(one)} of {len(truth)} masks, on every "
                "query, and those are all on which dampings are chosen or scored: the truth varies "
                "with too few masks; use more masks, or remove more examples by a smaller alpha"
            )
    return np.stack([lds(prediction[..., one, :], truth[one]).mean for one in members])


def choose(
    levels: NDArray[np.float64], reference: int | None = None, name: str = "the reference"
) -> Choice:
    """Best setting on the other folds, from the per-fold levels (F, nodes, D).

    With `reference` all nodes take the setting that is best for that node (the common
    protocols); without it each takes its own (`tuned`). A setting whose LDS is undefined in
    any fold is never chosen; a node without any defined setting gets the first, and a level
    of NaN. ``name`` is that of the reference node.

    Raises:
        ScoreError: fewer than two folds, or a reference node without any defined level.
    """
    if levels.ndim != 3 or levels.shape[0] < 2:
        raise ScoreError(f"need levels of shape (parts >= 2, rungs, dampings), got {levels.shape}")
    others = (levels.sum(0) - levels) / (levels.shape[0] - 1)
    decisive = others if reference is None else others[:, [reference], :]
    undefined = np.isnan(decisive).all(-1)
    if reference is not None and undefined.any():
        raise ScoreError(
            f"no damping gives {name} an LDS: what it predicts for a query is the same for all "
            "masks, as where the gradients of the queries or of the training examples vanish"
        )
    index = np.where(np.isnan(decisive), -np.inf, decisive).argmax(-1)
    edge = ((index == 0) | (index == levels.shape[2] - 1)) & ~undefined
    index, edge = (np.broadcast_to(each, levels.shape[:2]) for each in (index, edge))
    return Choice(index, edge.any(0))


def at_choice(prediction: Floats, choice: Choice, folds: NDArray[np.intp]) -> Floats:
    """Each mask's prediction at the setting of its fold: (nodes, D, M, Q) → (nodes, M, Q).

    Linearising the result with the same folds gives the cross-fitted levels.
    """
    nodes, _, masks, queries = prediction.shape
    chosen = np.empty((nodes, masks, queries), prediction.dtype)
    for fold, indices in enumerate(choice.index):
        member = folds == fold
        for node, index in enumerate(indices):
            chosen[node, member] = prediction[node, index, member]
    return chosen


@dataclass(frozen=True)
class Optimum:
    """A damping curve refined around its maximum."""

    dampings: NDArray[np.float64]
    """(D',) ascending settings, the given ones and the added ones."""
    levels: NDArray[np.float64]
    """(D',) LDS at each."""
    best: int
    """Position of the maximum."""
    edge: bool
    """Whether the maximum is the first or last setting: widen the grid."""


def refine(
    dampings: NDArray[np.float64],
    levels: NDArray[np.float64],
    evaluate: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rounds: int = 2,
    points: int = 3,
) -> Optimum:
    """Add `points` log-spaced settings on each side of the optimum, `rounds` times.

    `evaluate` maps settings (K,) to LDS (K,). An optimum on the edge is returned as it is, with
    its flag: refining the grid there would look for the maximum where it is not.

    Raises:
        ScoreError: the grid is not positive and ascending, or no level is defined.
    """
    if len(dampings) != len(levels) or (np.diff(dampings) <= 0).any() or dampings[0] <= 0:
        raise ScoreError(f"a damping grid must be positive and ascending, got {dampings}")
    if np.isnan(levels).all():
        raise ScoreError("no damping on the grid gives a defined LDS")
    for _ in range(rounds):
        best = int(np.nanargmax(levels))
        if best in (0, len(dampings) - 1):
            break
        sides = [dampings[best - 1 : best + 1], dampings[best : best + 2]]
        added = np.concatenate([np.geomspace(side[0], side[1], points + 2)[1:-1] for side in sides])
        merged = np.concatenate([dampings, added])
        order = np.argsort(merged)
        levels = np.concatenate([levels, evaluate(added)])[order]
        dampings = merged[order]
    best = int(np.nanargmax(levels))
    return Optimum(dampings, levels, best, best in (0, len(dampings) - 1))
