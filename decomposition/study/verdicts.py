"""Whether a claim is supported, contradicted or not resolved: in a cell, and over all of them.

Support of a claim with several contrasts needs every one of them positive, which is tested at
full level each (intersection–union, Berger 1982); contradiction needs one of them negative, which
is adjusted for their number. Both are adjusted over the cells by Holm (1979). A bootstrap p-value
is p = (1 + #{draws ≤ 0}) / (B + 1), one-sided at (1 − level) / 2; where no draw is on the other
side, the normal tail at the draws' mean and standard deviation takes over, since B resamples know
nothing below 1 / (B + 1) and an adjustment over many cells asks for less.

Over all cells: a claim about *every* cell is supported if each supports it and contradicted if one
contradicts it; any other is tested on the mean over cells of its drops, whose resamples are paired
because all cells weigh the same masks and queries. That mean is over these cells: nothing is said
of architectures that are not among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import norm

from decomposition.chain.paper_protocol import PAPER_CHAIN
from decomposition.chain.step import Step
from decomposition.results.schema import CI_BOUNDS
from decomposition.scores.bootstrap import Draws
from decomposition.shares.steps import CHAIN, drops
from decomposition.shares.verdict import holm
from decomposition.study.claims import BLAMED, CLAIMS, Claim
from decomposition.study.scored import ScoredCell

SUPPORTED, NOT_RESOLVED, CONTRADICTED = 1, 0, -1
OUTCOMES = {"supported": SUPPORTED, "not resolved": NOT_RESOLVED, "contradicted": CONTRADICTED}
CHAINS: Mapping[str, Sequence[Step]] = {"": CHAIN, "paper, ": PAPER_CHAIN}
"""Prefix of a protocol's name → chain."""
RESAMPLES_OF_CELLS = 2000


@dataclass(frozen=True)
class Tested:
    """One claim under one protocol: K cells, and all of them."""

    effect: NDArray[np.float64]
    """(K, 3)."""
    p_value: NDArray[np.float64]
    """(K,) adjusted over the cells, of the verdict's own side; NaN for exact numbers."""
    verdict: NDArray[np.int64]
    """(K,)."""
    pooled_effect: NDArray[np.float64]
    """(3,)."""
    pooled_verdict: int


def claims_group(cells: Sequence[ScoredCell], level: float) -> xr.Dataset:
    """Group ``/claims`` of a study."""
    names, rows = [], []
    for prefix, chain in CHAINS.items():
        nodes = {node for step in chain for node in (step.before, step.after)}
        if all(nodes <= set(one.rungs) for one in cells):
            for protocol in cells[0].protocols:
                names.append(prefix + protocol)
                rows.append([_test(claim, cells, chain, protocol, level) for claim in CLAIMS])
    table = [[row[i] for row in rows] for i in range(len(CLAIMS))]

    def stack(name: str) -> NDArray[np.float64]:
        return np.array([[getattr(tested, name) for tested in row] for row in table])

    verdict = stack("verdict").astype(np.int8)
    counts = np.stack([(verdict == value).sum(-1) for value in OUTCOMES.values()], -1)
    return xr.Dataset(
        {
            "effect": (("claim", "protocol", "cell", "ci_bound"), stack("effect")),
            "p_value": (("claim", "protocol", "cell"), stack("p_value")),
            "verdict": (("claim", "protocol", "cell"), verdict),
            "pooled_effect": (("claim", "protocol", "ci_bound"), stack("pooled_effect")),
            "pooled_verdict": (
                ("claim", "protocol"),
                stack("pooled_verdict").astype(np.int8),
            ),
            "counts": (("claim", "protocol", "outcome"), counts),
        },
        {
            "claim": [claim.name for claim in CLAIMS],
            "protocol": names,
            "cell": np.arange(len(cells)),
            "ci_bound": list(CI_BOUNDS),
            "outcome": list(OUTCOMES),
        },
        {
            "texts": json.dumps({claim.name: claim.text for claim in CLAIMS}),
            "effects": json.dumps({claim.name: claim.effect_text for claim in CLAIMS}),
        },
    )


def _test(
    claim: Claim, cells: Sequence[ScoredCell], chain: Sequence[Step], protocol: str, level: float
) -> Tested:
    if claim.exact:
        return _exact(claim, cells, chain, protocol, level)
    assert claim.effect is not None
    steps = [step.name for step in chain]
    found = [drops(one.levels(protocol), one.rungs, chain) for one in cells]
    alpha = 0.5 * (1.0 - level)
    sides = np.array([_sides(claim, drop, steps) for drop in found])  # (K, 2)
    adjusted = np.stack([holm(side) for side in sides.T], -1)
    verdict = _decide(adjusted, alpha)
    mean = Draws(
        np.mean([drop.estimate for drop in found], axis=0),
        np.mean([drop.draws for drop in found], axis=0),
    )
    pooled = int(_decide(np.array([_sides(claim, mean, steps)]), alpha)[0])
    if claim.everywhere:
        pooled = int(verdict.min()) if verdict.min() == verdict.max() else NOT_RESOLVED
        pooled = CONTRADICTED if (verdict == CONTRADICTED).any() else pooled
    return Tested(
        np.stack([claim.effect(drop, steps, level) for drop in found]),
        np.minimum(adjusted[:, 0], adjusted[:, 1]),
        verdict,
        claim.effect(mean, steps, level),
        pooled,
    )


def _sides(claim: Claim, drop: Draws, steps: Sequence[str]) -> tuple[float, float]:
    """One-sided p-values that speak for the claim and against it."""
    assert claim.contrasts is not None
    contrasts = drop.combine(claim.contrasts(steps))
    needed = 0.0
    if claim.given is not None:
        needed = float(_p_positive(drop.combine(claim.given(steps))).max())
    for_it = float(_p_positive(contrasts).max())
    negative = _p_positive(Draws(-contrasts.estimate, -contrasts.draws))
    against = min(1.0, len(negative) * float(negative.min()))
    return max(for_it, needed), max(against, needed)


def _p_positive(contrasts: Draws) -> NDArray[np.float64]:
    """(K,) p-value of each contrast being positive; 1 where it is undefined."""
    below, count = (contrasts.draws <= 0).sum(0), len(contrasts.draws)
    spread = np.maximum(contrasts.draws.std(0), np.finfo(float).tiny)
    tail = norm.sf(contrasts.draws.mean(0) / spread)
    p = np.where(below > 0, (1.0 + below) / (1.0 + count), np.minimum(tail, 1.0 / (1.0 + count)))
    return np.where(np.isnan(contrasts.estimate), 1.0, p)


def _decide(p_values: NDArray[np.float64], alpha: float) -> NDArray[np.int64]:
    return np.where(
        p_values[:, 0] <= alpha,
        SUPPORTED,
        np.where(p_values[:, 1] <= alpha, CONTRADICTED, NOT_RESOLVED),
    )


def _exact(
    claim: Claim, cells: Sequence[ScoredCell], chain: Sequence[Step], protocol: str, level: float
) -> Tested:
    """A share of an exact error: known without error in a cell; over cells, their spread."""
    shares = np.array([_exact_share(claim, one, chain, protocol) for one in cells])
    rows = np.random.default_rng((0, 41)).integers(
        len(cells), size=(RESAMPLES_OF_CELLS, len(cells))
    )
    pooled = Draws(shares.mean(), shares[rows].mean(1)).interval(level)
    verdict = np.sign(np.nan_to_num(shares - 0.5)).astype(np.int64)
    overall = SUPPORTED if pooled[0] > 0.5 else CONTRADICTED if pooled[2] < 0.5 else NOT_RESOLVED
    nothing = np.full(len(cells), np.nan)
    return Tested(np.repeat(shares[:, None], 3, 1), nothing, verdict, pooled, overall)


def _exact_share(claim: Claim, one: ScoredCell, chain: Sequence[Step], protocol: str) -> float:
    if claim.exact == "frobenius" and tuple(chain) == CHAIN:  # additive, with its cross term
        return float(one.errors["frobenius_share"].sel(frobenius_step=BLAMED))
    error = (
        one.errors["frobenius_error"] ** 2  # sampled factors: no additive split, so the increase
        if claim.exact == "frobenius"
        else one.errors["inverse_error"].sel(protocol=protocol)
    )
    step = next(step for step in chain if step.name == BLAMED)
    before, after = (float(error.sel(rung=node)) for node in (step.before, step.after))
    return (after - before) / after if after > 0 else float("nan")
