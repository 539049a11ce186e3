"""Children of /shares: every order of the steps, damping mismatch, worth of more masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from decomposition.chain import CHAIN, STEPS
from decomposition.results.schema import CI_BOUNDS
from decomposition.scores.levels import Levels
from decomposition.shares.lattice import CURVATURE, lattice_shares
from decomposition.shares.mismatch import damping_mismatch
from decomposition.shares.resolution import masks_curve
from decomposition.shares.steps import CHAIN as CHAIN_STEPS
from decomposition.shares.steps import contrasts


def order_groups(
    levels: Levels, metrics: Sequence[str], steps: Sequence[str], level: float
) -> dict[str, xr.Dataset]:
    """Shares along each feasible order, marginals, Shapley mean with spread, interactions."""
    nodes = tuple(CURVATURE.taken)
    found = {p: lattice_shares(levels.of(p, nodes), nodes, level=level) for p in levels.protocols}
    first = next(iter(found.values()))
    bounds = {"ci_bound": list(CI_BOUNDS)}
    coordinates = {
        "metric": ["lds"],
        "protocol": list(levels.protocols),
        "step": list(first.steps),
    }

    def stack(name: str) -> np.ndarray:
        return np.stack([getattr(one, name) for one in found.values()])[None]

    table = ("metric", "protocol", "step", "ci_bound")
    by_order = xr.Dataset(
        {
            "share_by_order": (
                ("metric", "protocol", "order", "step", "ci_bound"),
                stack("share_by_order"),
            ),
            "drop_by_order": (
                ("metric", "protocol", "order", "step", "ci_bound"),
                stack("drop_by_order"),
            ),
            "first": (table, stack("first")),
            "last": (table, stack("last")),
        },
        coordinates | bounds | {"order": list(first.orders)},
    )
    mean = xr.Dataset(
        {
            "shapley": (table, stack("shapley_share")),
            "shapley_drop": (table, stack("shapley")),
            "spread": (
                ("metric", "protocol", "step"),
                np.ptp(stack("share_by_order")[..., 1], axis=2),
            ),
        },
        coordinates | bounds,
    )
    pairs = [f"{i.step} after {i.after}, at {i.at}" for i in first.interactions]
    interactions = xr.Dataset(
        {
            "interaction": (
                ("protocol", "pair", "ci_bound"),
                np.stack([[i.value for i in one.interactions] for one in found.values()]),
            )
        },
        {"protocol": list(levels.protocols), "pair": pairs} | bounds,
    )
    full = {"metric": list(metrics), "step": list(steps)}  # a child shares its parent's axes
    return {
        "/shares/orders": by_order.reindex(full),
        "/shares/shapley": mean.reindex(full),
        "/shares/interactions": interactions,
    }


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
