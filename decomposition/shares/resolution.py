"""What another retrained model buys: interval width against masks and against repeats.

The variance of a level (or of any contrast of levels) is V_m(R)/M + V_q/Q + V_s/K. More masks
shrink the first term as a whole. More repeats shrink only the part of it that is training
noise: relative to the level squared (which noise attenuates), V_m(R) ≈ α + β/R, fitted to the
repeats at hand. At equal price masks are therefore never worse than repeats for resolution;
repeats are for the ceiling, which one repeat alone cannot give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import norm

from decomposition.chain import CHAIN, STEPS
from decomposition.scores.bootstrap import VarianceParts, variance_parts
from decomposition.scores.lds import linearise, mean_truth
from decomposition.scores.levels import Levels
from decomposition.scores.ranks import Floats
from decomposition.shares.steps import CHAIN as CHAIN_STEPS
from decomposition.shares.steps import contrasts


@dataclass(frozen=True)
class WidthCurve:
    """Width of an interval against how much is bought."""

    amount: NDArray[np.intp]
    """(n,) number of masks, or of repeats per mask."""
    width: NDArray[np.float64]
    """(n,) upper minus lower bound; of the repeats curve relative to the level."""
    measured: NDArray[np.bool_]
    """(n,) True within the study at hand, False where extrapolated."""


def masks_curve(
    parts: VarianceParts,
    contrast: NDArray[np.float64],
    masks: int,
    amounts: NDArray[np.intp] | None = None,
    level: float = 0.95,
) -> WidthCurve:
    """Interval width of Σ_c contrast_c · level_c against the number of masks.

    By default from a tenth of the masks at hand to ten times as many.
    """
    if amounts is None:
        amounts = np.unique(np.round(masks * np.geomspace(0.1, 10.0, 21)).astype(int))
    from_masks, from_queries, from_studies = parts.contrast(contrast)
    variance = from_masks * masks / amounts + from_queries + from_studies
    return WidthCurve(amounts, _width(np.sqrt(variance), level), amounts <= masks)


def repeats_curve(
    prediction: Floats,
    truth: Floats,
    amounts: NDArray[np.intp] | None = None,
    level: float = 0.95,
) -> WidthCurve:
    """Relative interval width (of LDS / level) of one prediction (M, Q) against repeats.

    `truth` is (M, R, Q). Up to R the first r repeats are used; beyond, α + β/r. By default up
    to four times R. With a single repeat nothing can be extrapolated and the curve has one
    point.

    Raises:
        ScoreError: shapes do not fit or a value is not finite.
    """
    repeats = truth.shape[1]
    at_hand = np.arange(1, repeats + 1)
    masks_part, other_part = np.empty(repeats), np.empty(repeats)
    for count in at_hand:
        linear = linearise(prediction[None], mean_truth(truth[:, :count]))
        parts = variance_parts(linear)
        scale = max(float(linear.mean[0]) ** 2, np.finfo(float).tiny)
        masks_part[count - 1] = parts.masks[0, 0] / scale
        other_part[count - 1] = parts.queries[0, 0] / scale
    if amounts is None:
        most = 4 * repeats if repeats > 1 else 1
        amounts = np.unique(np.concatenate([at_hand, np.geomspace(1, most, 9).astype(int)]))
    design = np.stack([np.ones(repeats), 1.0 / at_hand], axis=1)
    (alpha, beta), _ = nnls(design, masks_part)
    within = amounts <= repeats
    place = np.minimum(amounts, repeats) - 1
    fitted = alpha + beta / amounts
    variance = np.where(within, masks_part[place], fitted) + other_part[place]
    return WidthCurve(amounts, _width(np.sqrt(variance), level), within)


def _width(deviation: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    return 2.0 * float(norm.ppf(0.5 + level / 2.0)) * deviation


def resolution_group(
    levels: Levels, level: float, by_repeats: xr.DataArray | None = None
) -> xr.Dataset:
    """Width of the interval of every step's drop against masks, and of a level against repeats."""
    matrix = contrasts(CHAIN, CHAIN_STEPS)
    curves = [
        [masks_curve(levels.parts(p, CHAIN), row, levels.masks, level=level) for row in matrix]
        for p in levels.protocols
    ]
    data = xr.Dataset(
        {
            "width": (
                ("protocol", "chain_step", "masks"),
                np.array([[one.width for one in rows] for rows in curves]),
            )
        },
        {
            "protocol": list(levels.protocols),
            "chain_step": list(STEPS),
            "masks": curves[0][0].amount,
        },
    )
    if by_repeats is not None:
        data["relative_width"] = by_repeats.reset_coords(drop=True)
    return data
