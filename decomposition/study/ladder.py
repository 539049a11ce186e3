"""Group ``/ladder``: what each choice of the paper's protocol costs, one change at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from decomposition.chain.paper_protocol import LADDERS
from decomposition.results.schema import CI_BOUNDS
from decomposition.shares.steps import drops, shares_of
from decomposition.study.scored import ScoredCell


def ladder_group(cells: Sequence[ScoredCell], level: float) -> xr.Dataset | None:
    """Drop and share of every step of every ladder in every cell; None without their rungs."""
    nodes = {n for ladder in LADDERS.values() for step in ladder for n in (step.before, step.after)}
    if not all(nodes <= set(one.rungs) for one in cells):
        return None
    found = [[_one(one, protocol, level) for protocol in one.protocols] for one in cells]
    names = [(rung, step.name) for rung, ladder in LADDERS.items() for step in ladder]
    table = ("cell", "protocol", "ladder_step", "ci_bound")
    return xr.Dataset(
        {
            "drop": (table, np.array([[pair[0] for pair in row] for row in found])),
            "share": (table, np.array([[pair[1] for pair in row] for row in found])),
        },
        {
            "cell": np.arange(len(cells)),
            "protocol": list(cells[0].protocols),
            "ladder_step": [f"{rung}: {step}" for rung, step in names],
            "ladder_of": ("ladder_step", [rung for rung, _ in names]),
            "ci_bound": list(CI_BOUNDS),
        },
    )


def _one(one: ScoredCell, protocol: str, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Drops and shares (ladder steps, 3); shares are in the total of their own ladder."""
    levels = one.levels(protocol)
    results = [
        shares_of(drops(levels, one.rungs, ladder), tuple(s.name for s in ladder), level)
        for ladder in LADDERS.values()
    ]
    return (
        np.concatenate([result.drop for result in results]),
        np.concatenate([result.share for result in results]),
    )
