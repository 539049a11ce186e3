"""What is said over cells, of one or of many alike: claims, where they hold, rules, what to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import xarray as xr

from decomposition.shares.claims import claims_group
from decomposition.shares.claims_map import absolute_map, claims_map
from decomposition.shares.recommendation import recommendation_group
from decomposition.shares.regret import regret_group
from decomposition.shares.residual_lds import residual_lds_group

OVER_CELLS: Mapping[str, Callable[[Sequence[xr.DataTree], float], xr.Dataset | None]] = {
    "/claims": claims_group,
    "/claims/map": claims_map,
    "/claims/map/absolute": absolute_map,
    "/regret": regret_group,
    "/recommendation": recommendation_group,
    "/residual_lds": residual_lds_group,
}
"""Group → what makes it of results of single cells and a coverage; None: they do not tell."""


def over_cells(trees: Sequence[xr.DataTree], level: float) -> dict[str, xr.Dataset]:
    """Every such group that the cells tell, with the dimension ``cell``.

    Args:
        trees: of ``pipeline.compute_cell``.
        level: coverage of the intervals.
    """
    made = {path: group(trees, level) for path, group in OVER_CELLS.items()}
    return {path: data for path, data in made.items() if data is not None}
