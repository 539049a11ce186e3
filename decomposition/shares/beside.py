"""Group /beside: what stands beside the chain against every rung of it, with its interval."""

from __future__ import annotations

import numpy as np
import xarray as xr

from decomposition.chain import CHAIN, LATTICE
from decomposition.results.schema import BASELINES, CI_BOUNDS
from decomposition.scores.levels import Levels


def beside_group(levels: Levels, level: float) -> xr.Dataset | None:
    """LDS of every approximation and of scores made elsewhere, minus that of every rung.

    Resamples are paired, so that an interval is that of the difference. ``probability`` is the
    share of resamples in which the difference is positive, ties counting half; NaN where a level
    is missing.

    Args:
        levels: of all nodes.
        level: coverage of the intervals.
    """
    others = [node for node in levels.nodes if node not in (*LATTICE, *BASELINES)]
    if not others:
        return None
    shape = (len(levels.protocols), len(others), len(CHAIN))
    difference, probability = np.full((*shape, 3), np.nan), np.full(shape, np.nan)
    for i, protocol in enumerate(levels.protocols):
        chain = levels.of(protocol, CHAIN)
        for j, other in enumerate(others):
            gap = levels.of(protocol, [other]).minus(chain)
            difference[i, j] = gap.interval(level)
            share = (gap.draws > 0).mean(0) + 0.5 * (gap.draws == 0).mean(0)
            probability[i, j] = np.where(np.isfinite(gap.estimate), share, np.nan)
    dims = ("protocol", "other", "rung")
    return xr.Dataset(
        {
            "difference": ((*dims, "ci_bound"), difference),
            "probability": (dims, probability),
        },
        {
            "protocol": list(levels.protocols),
            "other": others,
            "rung": list(CHAIN),
            "ci_bound": list(CI_BOUNDS),
        },
    )
