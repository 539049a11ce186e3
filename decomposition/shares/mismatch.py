"""What damping alone costs: the same nodes at a common damping and at their own best one.

gap_node = level(tuned) − level(equal), at least zero up to noise. Along a chain the total under
`equal` is the tuned total plus gap(last) − gap(first): that last part is no property of the
approximation but of the damping it was read at, and gets a share of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from decomposition.chain import CHAIN
from decomposition.names import CI_BOUNDS
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import Levels
from decomposition.shares.steps import ShareError, excludes_zero, ratio


@dataclass(frozen=True)
class DampingMismatch:
    """Cost of a common damping; the last axis is lower, estimate, upper."""

    gap: NDArray[np.float64]
    """(nodes, 3) level tuned minus level at the common damping."""
    share: NDArray[np.float64]
    """(nodes, 3) the same as a share of the total under the common damping; NaN if undefined."""
    mismatch: NDArray[np.float64]
    """(3,) gap of the last node minus gap of the first."""
    mismatch_share: NDArray[np.float64]
    """(3,) share of the total drop under the common damping that is mismatch; NaN if undefined."""
    total: NDArray[np.float64]
    """(3,) level of the first node minus level of the last, at the common damping."""
    defined: bool
    """Whether the interval of that total excludes zero."""


def damping_mismatch(equal: Draws, tuned: Draws, level: float = 0.95) -> DampingMismatch:
    """Mismatch from levels (nodes,) in chain order, both protocols from one bootstrap.

    Raises:
        ShareError: the two protocols have different nodes or resamples.
    """
    if equal.draws.shape != tuned.draws.shape or equal.estimate.ndim != 1:
        raise ShareError(
            f"both protocols need the same (resamples, rungs), got {equal.draws.shape} and "
            f"{tuned.draws.shape}"
        )
    gap = Draws(tuned.estimate - equal.estimate, tuned.draws - equal.draws)
    ends = np.zeros((2, len(equal.estimate)))
    ends[0, [0, -1]] = 1.0, -1.0
    ends[1, [0, -1]] = -1.0, 1.0
    total = equal.combine(ends)[0]
    mismatch = gap.combine(ends)[1]
    total_interval = total.interval(level)
    defined = excludes_zero(total_interval)
    return DampingMismatch(
        gap.interval(level),
        ratio(gap, total, level) if defined else np.full((len(equal.estimate), 3), np.nan),
        mismatch.interval(level),
        ratio(mismatch, total, level) if defined else np.full(3, np.nan),
        total_interval,
        defined,
    )


def mismatch_group(levels: Levels, level: float) -> xr.Dataset:
    """What damping alone costs: levels at a common λ against every rung at its own."""
    found = damping_mismatch(levels.of("equal", CHAIN), levels.of("tuned", CHAIN), level)
    data = xr.Dataset(
        {
            "gap": (("rung", "ci_bound"), found.gap),
            "gap_share": (("rung", "ci_bound"), found.share),
            "mismatch": ("ci_bound", found.mismatch),
            "mismatch_share": ("ci_bound", found.mismatch_share),
        },
        {"rung": list(CHAIN), "ci_bound": list(CI_BOUNDS)},
    )
    return data.reindex(rung=list(levels.nodes))
