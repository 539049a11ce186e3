"""Cells whose levels are known: estimates with Gaussian draws around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from decomposition.chain import CHAIN, LATTICE
from decomposition.problems.variant import Variant
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import SOURCES, Levels, draws_dataset
from decomposition.spectrum.residuals import RESIDUALS
from decomposition.study.cell import Cell
from decomposition.study.design import PAPER_RECIPE

PROTOCOLS = ("equal", "tuned")
DRAWS = 1500


@dataclass(frozen=True)
class Planted:
    """A cell, and what might have been computed about it."""

    cell: Cell
    tree: xr.DataTree


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
    residual: Sequence[float] | None = None,
) -> Planted:
    """A cell with these LDS levels (of the chain, in order) and independent noise of one sd.

    ``share`` is the eigenvalue step's in the squared Frobenius error and in the solutions';
    ``residual`` that of every rung of the chain, over 50 gradients, under every protocol and at
    two dampings.
    """
    chain = dict(zip(CHAIN, levels, strict=True)) if not isinstance(levels, Mapping) else levels
    values = dict.fromkeys(LATTICE, chain["block_ggn"]) | dict(chain) | dict(extra or {})
    rungs = list(values)
    generator = np.random.default_rng((seed, epoch, *hidden))
    estimate = np.tile(np.array(list(values.values())), (len(PROTOCOLS), 1))
    draws = estimate + noise * generator.normal(size=(DRAWS, *estimate.shape))
    variance = np.zeros((len(SOURCES), len(PROTOCOLS), len(rungs), len(rungs)))
    variance[0] = noise**2 * np.eye(len(rungs))
    found = Levels(
        PROTOCOLS, tuple(rungs), 1000, Draws(estimate, draws), variance, estimate[None]
    ).dataset()
    found["damping"] = (("protocol", "rung"), np.ones(estimate.shape))
    multipliers = [0.1, 1.0, 10.0]
    at = np.tile(np.array(list(values.values())), (3, 1))
    around = at + noise * generator.normal(size=(DRAWS, *at.shape))
    at_damping = draws_dataset(Draws(at, around), {"multiplier": multipliers, "rung": rungs})
    at_damping["damping_value"] = ("multiplier", multipliers)
    steps = ["linearisation", "cross_layer", "eigenbasis", "eigenvalues", "cross_term"]
    inverse = dict.fromkeys(rungs, 1.0 - share) | {"hessian": 0.0, "kfac": 1.0}
    errors = xr.Dataset(
        {
            "squared_error": (("step", "probe"), [[1.0 - share], [0.0], [0.0], [share], [0.0]]),
            "value": (("metric", "rung"), np.linspace(0, 1, len(rungs))[None]),
            "misaligned_solutions": (
                ("protocol", "rung"),
                [[inverse[rung] for rung in rungs]] * len(PROTOCOLS),
            ),
        },
        {
            "step": steps,
            "probe": [0],
            "metric": ["relative_frobenius"],
            "rung": rungs,
            "protocol": list(PROTOCOLS),
        },
    )
    more = {} if residual is None else {"/residuals": residuals(residual, generator)}
    facts = {"parameters": 1210, "train_loss": 0.1, "query_loss": 0.2}
    tree = xr.DataTree.from_dict(
        {
            "/cells": xr.Dataset({name: ((), value) for name, value in facts.items()}),
            "/levels": found,
            "/levels/at_damping": at_damping,
            "/spectral_error": errors,
            "/attribution": xr.Dataset(coords={"rung": rungs}),
            **more,
        }
    )
    length = 1000 if examples is None else epoch  # other sizes have trainings of their own
    recipe = replace(PAPER_RECIPE, epochs=length, checkpoint=epoch)
    variant = Variant(hidden=hidden, activation="tanh", examples=examples)
    return Planted(Cell("digits", variant, recipe, seed=seed), tree)


def residuals(means: Sequence[float], generator: np.random.Generator) -> xr.Dataset:
    """Of 50 of many gradients, each the mean times a factor of its own around 1."""
    factor = 1 + 0.1 * generator.normal(size=50)
    each = np.array(means)[:, None] * factor + 0.005 * generator.normal(size=(len(means), 50))
    table = np.broadcast_to(each, (len(RESIDUALS), 2, *each.shape))
    return xr.Dataset(
        {
            "under": (("metric", "protocol", "rung", "vector"), table),
            "at_damping": (("metric", "damping", "rung", "vector"), table),
            "vectors": ("metric", [50] * len(RESIDUALS)),
            "every": ("metric", [0] * len(RESIDUALS)),
        },
        {
            "metric": list(RESIDUALS),
            "protocol": list(PROTOCOLS),
            "rung": list(CHAIN),
            "damping": [0.1, 10.0],
            "multiplier": ("damping", [0.1, 10.0]),
        },
    )
