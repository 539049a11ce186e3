"""Shares of the steps of an ordered chain in what the whole chain loses.

drop_s = level(before) − level(after), total = level(first) − level(last), share = drop / total.
A share is undefined when the interval of the total contains zero; negative shares stand as
they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.errors import DecompositionError
from decomposition.names import Step
from decomposition.scores.bootstrap import Draws


class ShareError(DecompositionError, ValueError):
    """Nodes, steps and levels do not fit together."""


CHAIN = (
    Step("linearisation", "hessian", "ggn"),
    Step("cross_layer", "ggn", "block_ggn"),
    Step("eigenbasis", "block_ggn", "ekfac"),
    Step("eigenvalues", "ekfac", "kfac"),
)


@dataclass(frozen=True)
class StepShares:
    """Drops and shares of S steps; the last axis of an interval is lower, estimate, upper."""

    steps: tuple[str, ...]
    drop: NDArray[np.float64]
    """(S, 3) level before minus level after."""
    share: NDArray[np.float64]
    """(S, 3) drop / total; NaN where undefined."""
    total: NDArray[np.float64]
    """(3,) level of the first node minus level of the last."""
    defined: bool
    """Whether the interval of the total excludes zero."""
    probability_degrades: NDArray[np.float64]
    """(S,) fraction of resamples with a positive drop; NaN for exact quantities."""


def contrasts(nodes: Sequence[str], steps: Sequence[Step]) -> NDArray[np.float64]:
    """(S, nodes) matrix that turns levels into drops.

    Raises:
        ShareError: a step names a node that has no level.
    """
    position = {node: index for index, node in enumerate(nodes)}
    matrix = np.zeros((len(steps), len(position)))
    for row, step in enumerate(steps):
        for node, sign in ((step.before, 1.0), (step.after, -1.0)):
            if node not in position:
                raise ShareError(
                    f"step {step.name} needs a level for rung {node!r}; there are levels for "
                    f"{', '.join(nodes)}"
                )
            matrix[row, position[node]] += sign
    return matrix


def drops(levels: Draws, nodes: Sequence[str], steps: Sequence[Step] = CHAIN) -> Draws:
    """Drops (S,) of the steps, from the levels (nodes,)."""
    return levels.combine(contrasts(nodes, steps))


def step_shares(
    levels: Draws, nodes: Sequence[str], steps: Sequence[Step] = CHAIN, level: float = 0.95
) -> StepShares:
    """Drops, shares and total of consecutive `steps` from levels (nodes,), with intervals.

    Raises:
        ShareError: a step does not start where the one before it ends, or lacks a level.
    """
    for one, following in itertools.pairwise(steps):
        if one.after != following.before:
            raise ShareError(
                f"step {following.name} starts at {following.before}, but {one.name} ends at "
                f"{one.after}"
            )
    return shares_of(drops(levels, nodes, steps), tuple(step.name for step in steps), level)


def shares_of(drop: Draws, names: tuple[str, ...], level: float = 0.95) -> StepShares:
    """Shares of drops (S,) in their sum."""
    total = Draws(drop.estimate.sum(), drop.draws.sum(-1))
    total_interval = total.interval(level)
    defined = excludes_zero(total_interval)
    return StepShares(
        names,
        drop.interval(level),
        ratio(drop, total, level) if defined else np.full((len(names), 3), np.nan),
        total_interval,
        defined,
        (drop.draws > 0).mean(0),
    )


def exact_shares(drop: NDArray[np.float64], names: tuple[str, ...]) -> StepShares:
    """Shares of exact, non-random terms (S,), such as squared norms, in their sum.

    A cross term is one more entry of `drop`. Undefined only where the sum is zero.
    """
    total = float(drop.sum())
    # Below this the sum is rounding error of its terms.
    defined = abs(total) > 1e-12 * float(np.abs(drop).sum())
    share = drop / total if defined else np.full(len(drop), np.nan)
    triple = np.ones(3)
    return StepShares(
        names,
        drop[:, None] * triple,
        share[:, None] * triple,
        total * triple,
        defined,
        np.full(len(drop), np.nan),
    )


def ratio(part: Draws, whole: Draws, level: float = 0.95) -> NDArray[np.float64]:
    """Interval (…, 3) of part / whole, resample by resample; `whole` () must exclude zero."""
    scale = whole.draws.reshape(-1, *([1] * part.estimate.ndim))
    draws = np.divide(part.draws, scale, out=np.full(part.draws.shape, np.inf), where=scale != 0)
    return Draws(part.estimate / whole.estimate, draws).interval(level)


def excludes_zero(interval: NDArray[np.float64]) -> bool:
    """Whether the interval (3,) lies wholly on one side of zero; False where it is NaN."""
    return bool(interval[0] > 0 or interval[2] < 0)
