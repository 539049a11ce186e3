"""Cells whose levels are known: estimates with Gaussian draws around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from decomposition.chain import CHAIN, LATTICE
from decomposition.problems.variant import Variant
from decomposition.study.cell import Cell
from decomposition.study.design import PAPER_RECIPE
from decomposition.study.scored import ScoredCell

PROTOCOLS = ("equal", "tuned")
DRAWS = 1500


def scored(
    levels: Mapping[str, float] | Sequence[float],
    noise: float = 0.001,
    *,
    share: float = 0.1,
    seed: int = 0,
    epoch: int = 10,
    examples: int | None = None,
    hidden: tuple[int, ...] = (16,),
    extra: Mapping[str, float] | None = None,
) -> ScoredCell:
    """A cell with these LDS levels (of the chain, in order) and independent noise of one sd.

    ``share`` is the eigenvalue step's in the squared Frobenius error and in the solutions'.
    """
    chain = dict(zip(CHAIN, levels, strict=True)) if not isinstance(levels, Mapping) else levels
    values = dict.fromkeys(LATTICE, chain["block_ggn"]) | dict(chain) | dict(extra or {})
    rungs = list(values)
    generator = np.random.default_rng((seed, epoch, *hidden))
    estimate = np.tile(np.array(list(values.values())), (len(PROTOCOLS), 1))
    draws = estimate + noise * generator.normal(size=(DRAWS, *estimate.shape))
    found = xr.Dataset(
        {
            "estimate": (("protocol", "rung"), estimate),
            "draws": (("draw", "protocol", "rung"), draws.astype(np.float32)),
        },
        {"protocol": list(PROTOCOLS), "rung": rungs},
    )
    multipliers = np.array([0.1, 1.0, 10.0])
    chain_levels = np.tile([values[rung] for rung in CHAIN], (3, 1))
    at = xr.Dataset(
        {
            "estimate": (("multiplier", "chain_rung"), chain_levels),
            "draws": (
                ("draw", "multiplier", "chain_rung"),
                chain_levels + noise * generator.normal(size=(DRAWS, 3, len(CHAIN))),
            ),
        },
        {"multiplier": multipliers, "chain_rung": list(CHAIN)},
    )
    split = ["linearisation", "cross_layer", "eigenbasis", "eigenvalues", "cross_term"]
    inverse = dict.fromkeys(rungs, 1.0 - share) | {"hessian": 0.0, "kfac": 1.0}
    errors = xr.Dataset(
        {
            "frobenius_share": ("frobenius_step", [1.0 - share, 0.0, 0.0, share, 0.0]),
            "frobenius_error": ("rung", np.linspace(0, 1, len(rungs))),
            "inverse_error": (
                ("protocol", "rung"),
                [[inverse[rung] for rung in rungs]] * len(PROTOCOLS),
            ),
            "damping": (("protocol", "rung"), np.ones((len(PROTOCOLS), len(rungs)))),
            "parameters": ((), 1210),
            "train_loss": ((), 0.1),
            "query_loss": ((), 0.2),
        },
        {"frobenius_step": split, "rung": rungs, "protocol": list(PROTOCOLS)},
    )
    tree = xr.DataTree.from_dict({"/levels": found, "/dampings": at, "/errors": errors})
    length = 1000 if examples is None else epoch  # other sizes have trainings of their own
    recipe = replace(PAPER_RECIPE, epochs=length, checkpoint=epoch)
    variant = Variant(hidden=hidden, activation="tanh", examples=examples)
    cell = Cell("digits", variant, recipe, seed=seed)
    return ScoredCell(cell, tree)
