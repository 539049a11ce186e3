"""A study's tree with planted numbers and nothing computed: what its report sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from decomposition.names import CHAIN, CI_BOUNDS, STEPS
from decomposition.results.upgrade import upgraded

LEVELS = {
    "hessian": 0.62,
    "ggn": 0.61,
    "block_ggn": 0.53,
    "ekfac": 0.47,
    "kfac": 0.45,
    "block_hessian": 0.54,
    "identity": 0.30,
    "random": 0.0,
}
"""Planted LDS of the first cell under the first protocol."""
FROBENIUS = (0.10, 0.25, 0.05, 0.56, 0.04)
"""Planted shares of ‖H − K‖²: the steps, then the cross term."""
PROTOCOLS = ("equal", "relative", "effective_dimension", "tuned")
OUTCOMES = ("supported", "not resolved", "contradicted")
CLAIMS = {
    "better": "Better Hessian approximations consistently give better influence scores.",
    "error": "The eigenvalue mismatch accounts for the majority of the error.",
    "loss": "The eigenvalue mismatch accounts for the majority of the influence loss.",
}
EFFECTS = {
    "better": "LDS of H minus LDS of K-FAC",
    "error": "share of the eigenvalue step in ‖H − K‖², against 0.5",
    "loss": "share of the eigenvalue step in the LDS lost, against 0.5",
}
LADDERS = {
    "kfac": {"separate_bias": 0.01, "one_sample": 0.08, "factored_damping": -0.03},
    "ekfac": {"separate_bias": 0.01, "one_sample": 0.06},
    "hessian": {"truncation": 0.02},
}
"""Planted drops."""


@dataclass(frozen=True)
class PlantedStudy:
    """What the synthetic study is to look like."""

    hidden: tuple[str, ...] = ("16", "16-16-16-16", "64")
    epochs: tuple[int, ...] = (10, 100, 1000)
    alphas: tuple[float, ...] = (0.5,)
    seeds: tuple[int, ...] = (0,)
    factor: str = "grid"
    protocols: tuple[str, ...] = PROTOCOLS
    rungs: tuple[str, ...] = (*CHAIN, "block_hessian", "identity", "random")
    chains: tuple[str, ...] = ("",)
    claims: bool = True
    trends: bool = True
    ladder: bool = False
    shapley: bool = True
    undefined_from: int = -2
    """The cells from this one on have undefined shares under the last protocol."""
    title: str = "Do better Hessians give better influence scores?"
    label: str = ""
    """Label of every cell; by default what it is."""
    seed: int = 0

    @property
    def cells(self) -> list[tuple[str, int, float, int]]:
        return list(product(self.hidden, self.epochs, self.alphas, self.seeds))


def synthetic_study(planted: PlantedStudy | None = None) -> xr.DataTree:
    return upgraded(study_of_schema_1(planted))


def study_of_schema_1(planted: PlantedStudy | None = None) -> xr.DataTree:
    planted = planted or PlantedStudy()
    root = xr.Dataset(
        attrs={
            "study": "paper_grid",
            "title": planted.title,
            "description": "Digits, six architectures, three checkpoints.",
            "created_at": "2026-01-01T00:00:00+00:00",
            "command": "python analyses/paper_grid.py --out out/",
            "library_version": "0.1.0",
            "versions": json.dumps({"torch": "2.6", "numpy": "2.1"}),
            "config": json.dumps({"study": "paper_grid", "masks": 1000}),
            "notes": json.dumps(["cell 3: factor A of layer 0 has a repeated eigenvalue"]),
            "factor": planted.factor,
            "ci_level": 0.95,
        }
    )
    groups = {"/": root, "/cells": _cells(planted)}
    if planted.claims:
        groups["/claims"] = _claims(planted)
    if planted.trends:
        groups["/trends"] = _trends(planted)
    if planted.ladder:
        groups["/ladder"] = _ladder(planted)
    return xr.DataTree.from_dict(groups)


def around(values: Sequence[float] | np.ndarray, half: float) -> np.ndarray:
    """Values (...) with bounds ``half`` away, (..., 3)."""
    values = np.asarray(values, dtype=float)
    return np.stack([values - half, values, values + half], -1)


def _cells(planted: PlantedStudy) -> xr.Dataset:
    cells, protocols, rungs = planted.cells, planted.protocols, planted.rungs
    n, rng = len(cells), np.random.default_rng((planted.seed, 11))
    shift = np.concatenate([[0.0], rng.uniform(-0.12, 0.12, n - 1)])
    base = np.array([LEVELS.get(r, 0.5) for r in rungs])
    spread = 1.0 + 0.15 * np.arange(len(protocols))[:, None] * (base - base.mean())
    level = base * spread + shift[:, None, None] * (base > 0.1)
    drop = -np.diff(level[..., [rungs.index(r) for r in CHAIN]], axis=-1)
    total = drop.sum(-1)
    share = around(drop / total[..., None], 0.09)
    share[planted.undefined_from :, -1] = np.nan
    table = ("cell", "protocol", "step", "ci_bound")
    hidden = [cell[0] for cell in cells]
    data = xr.Dataset(
        {
            "level": (("cell", "protocol", "rung", "ci_bound"), around(level, 0.02)),
            "drop": (table, around(drop, 0.01)),
            "share": (table, share),
            "total": (("cell", "protocol", "ci_bound"), around(total, 0.02)),
            "ceiling": (("cell", "ci_bound"), around(0.9 + shift / 4, 0.01)),
            "reliability": (("cell", "ci_bound"), around(0.81 + shift / 4, 0.01)),
            "frobenius_share": (("cell", "frobenius_step"), _frobenius(n, rng)),
            "frobenius_error": (("cell", "rung"), rng.uniform(0.1, 0.9, (n, len(rungs)))),
            "inverse_error": (
                ("cell", "protocol", "rung"),
                rng.uniform(0.1, 0.9, (n, len(protocols), len(rungs))),
            ),
            "train_loss": ("cell", rng.uniform(0.01, 0.2, n)),
            "query_loss": ("cell", rng.uniform(0.1, 0.4, n)),
            "query_accuracy": ("cell", rng.uniform(0.9, 0.98, n)),
        },
        {
            "cell": np.arange(n),
            "label": ("cell", [planted.label or _label(*cell) for cell in cells]),
            "dataset": ("cell", ["digits"] * n),
            "hidden": ("cell", hidden),
            "depth": ("cell", [len(h.split("-")) for h in hidden]),
            "width": ("cell", [int(h.split("-")[0]) for h in hidden]),
            "activation": ("cell", ["tanh"] * n),
            "epoch": ("cell", [cell[1] for cell in cells]),
            "seed": ("cell", [cell[3] for cell in cells]),
            "alpha": ("cell", [cell[2] for cell in cells]),
            "randomness": ("cell", ["shared"] * n),
            "examples": ("cell", [0] * n),
            "label_noise": ("cell", [0.0] * n),
            "target": ("cell", ["loss"] * n),
            "parameters": ("cell", [1210] * n),
            "protocol": list(protocols),
            "rung": list(rungs),
            "step": list(STEPS),
            "frobenius_step": [*STEPS, "cross_term"],
            "ci_bound": list(CI_BOUNDS),
        },
    )
    if planted.shapley:
        data["shapley"] = (table, share + 0.03)
    if planted.factor == "multiplier":
        multipliers, rungs_at = np.logspace(-3, 2, 6), len(CHAIN)
        curve = 0.6 - 0.1 * np.abs(np.log10(multipliers))[None, :, None] * np.linspace(
            1, 0.6, rungs_at
        )
        curve = np.repeat(curve, n, axis=0)
        dims = ("cell", "multiplier", "chain_rung", "ci_bound")
        data["level_at"] = (dims, around(curve, 0.02))
        data = data.assign_coords(multiplier=multipliers, chain_rung=list(CHAIN))
    return data


def _label(hidden: str, epoch: int, alpha: float, seed: int) -> str:
    return f"digits, {hidden}, epoch {epoch}, α = {alpha:g}, seed {seed}"


def _frobenius(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, steps and cross term): the first cell as planted, the others near it."""
    shares = np.array(FROBENIUS) * np.exp(rng.normal(0, 0.3, (n, len(FROBENIUS))))
    shares[0] = FROBENIUS
    return shares / shares.sum(1, keepdims=True)


def _claims(planted: PlantedStudy) -> xr.Dataset:
    """``better`` is supported in all cells but the last, ``loss`` contradicted in all but one,
    ``error``, about exact numbers, not resolved; under the last protocol there are none of these,
    and ``loss`` was not tested."""
    n = len(planted.cells)
    protocols = [c + p for c in planted.chains for p in planted.protocols]
    verdict = np.zeros((3, len(protocols), n), dtype=np.int8)
    verdict[0, :, :] = 1
    verdict[0, :, -1] = 0
    verdict[2, :, :] = -1
    verdict[2, :, 0] = 1 if n > 1 else -1
    effect = np.array([0.17, 0.52, 0.12])[:, None, None] + np.zeros((3, len(protocols), n))
    pooled = around(np.array([0.17, 0.52, 0.12])[:, None] + np.zeros((3, len(protocols))), 0.02)
    counts = np.stack([(verdict == value).sum(-1) for value in (1, 0, -1)], -1)
    p_value = np.where(verdict == 0, 0.2, 0.0004)
    pooled[2, -1], counts[2, -1] = np.nan, 0
    p_value[1] = np.nan
    pooled[1, -1], effect[1, -1], counts[1, -1] = np.nan, np.nan, 0
    names = list(CLAIMS)
    return xr.Dataset(
        {
            "effect": (("claim", "protocol", "cell", "ci_bound"), around(effect, 0.03)),
            "verdict": (("claim", "protocol", "cell"), verdict),
            "p_value": (("claim", "protocol", "cell"), p_value),
            "pooled_effect": (("claim", "protocol", "ci_bound"), pooled),
            "pooled_verdict": (
                ("claim", "protocol"),
                np.repeat(np.array([[1], [0], [-1]], dtype=np.int8), len(protocols), 1),
            ),
            "counts": (("claim", "protocol", "outcome"), counts),
        },
        {
            "claim": (
                "claim",
                names,
                {"texts": json.dumps(CLAIMS), "effects": json.dumps(EFFECTS)},
            ),
            "protocol": protocols,
            "cell": np.arange(n),
            "ci_bound": list(CI_BOUNDS),
            "outcome": list(OUTCOMES),
        },
    )


def _trends(planted: PlantedStudy) -> xr.Dataset:
    """Levels fall by 0.03 with every doubling, drops do not change."""
    factors = ["epoch", "width", "depth"] if planted.factor == "grid" else [planted.factor]
    names = [*(f"level {r}" for r in CHAIN), *(f"drop {s}" for s in STEPS)]
    slope = np.array([-0.03] * len(CHAIN) + [0.002] * len(STEPS))
    slope = np.tile(slope[:, None], (len(factors), len(planted.protocols)))
    of = [f for f in factors for _ in names]
    return xr.Dataset(
        {
            "slope": (("quantity", "protocol", "ci_bound"), around(slope, 0.01)),
            "p_value": (("quantity", "protocol"), np.where(slope < 0, 0.001, 0.7)),
            "factor": ("quantity", of),
            "unit": ("quantity", [f"LDS per doubling of {f}" for f in of]),
        },
        {
            "quantity": [f"{name} by {f}" for f in factors for name in names],
            "protocol": list(planted.protocols),
            "ci_bound": list(CI_BOUNDS),
        },
    )


def _ladder(planted: PlantedStudy) -> xr.Dataset:
    n, protocols = len(planted.cells), planted.protocols
    drops = [d for ladder in LADDERS.values() for d in ladder.values()]
    shares = [d / sum(ladder.values()) for ladder in LADDERS.values() for d in ladder.values()]
    shape = (n, len(protocols), len(drops))
    share = around(np.broadcast_to(shares, shape), 0.2)
    share[:, -1] = np.nan
    table = ("cell", "protocol", "ladder_step", "ci_bound")
    return xr.Dataset(
        {
            "drop": (table, around(np.broadcast_to(drops, shape), 0.015)),
            "share": (table, share),
        },
        {
            "cell": np.arange(n),
            "protocol": list(protocols),
            "ladder_step": [f"{r}: {s}" for r, ladder in LADDERS.items() for s in ladder],
            "ladder_of": ("ladder_step", [r for r, ladder in LADDERS.items() for _ in ladder]),
            "ci_bound": list(CI_BOUNDS),
        },
    )
