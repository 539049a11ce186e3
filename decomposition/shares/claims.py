"""The paper's claims as statements about the steps of a chain, and how each stands up.

A claim holds in a cell if all its contrasts of levels are positive, and fails if one of them is
negative; a claim about the majority of a loss has no meaning, and is not tested, where the estimate
is a gain. Levels are LDS with its resamples, or minus the residual of the inverse (Eq. 9) with
resamples of the gradients; claims about matrices and solutions are about exact numbers.

Support of a claim with several contrasts needs every one of them positive, which is tested at
full level each (intersection–union, Berger 1982); contradiction needs one of them negative, which
is adjusted for their number. Both are adjusted over the cells by Holm (1979). A bootstrap p-value
is p = (1 + #{draws ≤ 0}) / (B + 1), one-sided at (1 − level) / 2; where no draw is on the other
side, the normal tail at the draws' mean and standard deviation takes over, since B resamples know
nothing below 1 / (B + 1) and an adjustment over many cells asks for less.

Over all cells: a claim about *every* cell is supported if each supports it and contradicted if one
contradicts it; any other is tested on the mean over cells of its drops, whose resamples are paired
because all cells weigh the same masks and queries. That mean is over these cells, of which those
without a level are left out: nothing is said of architectures that are not among them.

Source of the claims: Hong et al., Better Hessians Matter (arXiv 2509.23437).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import norm

from decomposition.chain.paper_protocol import PAPER_CHAIN
from decomposition.names import CHAIN as NODES
from decomposition.names import CI_BOUNDS, STEPS, Step
from decomposition.scores.bootstrap import Draws, mean_over_cells
from decomposition.scores.levels import Levels, read_levels, shared_protocols
from decomposition.shares.errors import residual_levels
from decomposition.shares.steps import CHAIN, drops, ratio
from decomposition.shares.verdict import holm

BLAMED = "eigenvalues"
"""The step that the paper blames: K-FAC's eigenvalues instead of exact ones."""

Drops = Draws
"""Drops (S,) of the steps of a chain."""
Of = Literal["lds", "residual", "frobenius", "solutions"]
RESIDUAL = "inverse_residual_train"
"""The residual that the claim is about: over training gradients, with H, as published."""


@dataclass(frozen=True)
class Claim:
    """A statement about the drops of a chain's steps, or about shares of an exact number."""

    name: str
    text: str
    """As a sentence."""
    effect_text: str
    """What the effect is, with its unit and the value it is compared with."""
    everywhere: bool = False
    """Whether it is about every cell, rather than about their mean."""
    contrasts: Callable[[Sequence[str]], NDArray[np.float64]] | None = None
    """(K, S) contrasts of drops that are all positive if it holds; None for an exact number."""
    given: Callable[[Sequence[str]], NDArray[np.float64]] | None = None
    """(K, S) contrasts that must be positive for it to have a meaning."""
    effect: Callable[[Drops, Sequence[str], float], NDArray[np.float64]] | None = None
    """(3,) effect with its interval."""
    of: Of = "lds"
    """Whose drops: of the LDS or the residual; or of which exact number it is a share."""
    against: str = "not reproduced"
    """What a resolved verdict against it is called."""

    @property
    def exact(self) -> bool:
        """Whether it is about a number without resamples."""
        return self.of in ("frobenius", "solutions")


def _each(steps: Sequence[str]) -> NDArray[np.float64]:
    return np.eye(len(steps))[_of_curvature(steps)]


def _of_curvature(steps: Sequence[str]) -> NDArray[np.intp]:
    """Places of the steps to a worse Hessian; another damping of the same one is none."""
    return np.array([i for i, step in enumerate(steps) if step in STEPS])


def _total(steps: Sequence[str]) -> NDArray[np.float64]:
    return np.ones((1, len(steps)))


def _majority(steps: Sequence[str]) -> NDArray[np.float64]:
    return (_blamed(steps) - 0.5)[None]


def _blamed(steps: Sequence[str]) -> NDArray[np.float64]:
    return np.array([float(step == BLAMED) for step in steps])


def _costliest(steps: Sequence[str]) -> NDArray[np.float64]:
    """It loses, and more than any other: where all gain, none is costly."""
    others = [row for row, step in zip(np.eye(len(steps)), steps, strict=True) if step != BLAMED]
    return _blamed(steps) - np.array([np.zeros(len(steps)), *others])


def _order(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    """Kendall's τ between a rung's place in the chain and its level."""
    drops = drops[_of_curvature(steps)]
    estimate = _kendall(drops.estimate[None])[0]
    return Draws(np.asarray(estimate), _kendall(drops.draws)).interval(level)


def _kendall(drops: NDArray[np.float64]) -> NDArray[np.float64]:
    """τ of levels (B, S + 1) against an ideal descent, from their drops (B, S)."""
    levels = np.concatenate([np.zeros((len(drops), 1)), -np.cumsum(drops, 1)], 1)
    first, second = np.triu_indices(levels.shape[1], 1)
    return np.sign(levels[:, first] - levels[:, second]).mean(1)


def _loss(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    return drops.combine(_total(steps))[0].interval(level)


def _share(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    total = drops.combine(_total(steps))[0]
    if not total.interval(level)[0] > 0:
        return np.full(3, np.nan)
    return ratio(drops.combine(_blamed(steps)[None])[0], total, level)


def _lead(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    """Drop of the blamed step minus the largest of the others, or 0."""
    lead = drops.combine(_costliest(steps))
    return Draws(lead.estimate.min(-1), lead.draws.min(-1)).interval(level)


MISMATCH = "The K-FAC eigenvalue mismatch"
"""Published as that between the eigenvalues of K-FAC and those of the GGN and EK-FAC."""
CLAIMS = (
    Claim(
        "consistently",
        "Better Hessian approximations consistently give better influence scores.",
        "Kendall's τ between place in the chain and LDS; 1 if every step loses",
        everywhere=True,
        contrasts=_each,
        effect=_order,
        against="reversed",
    ),
    Claim(
        "overall",
        "The exact Hessian gives better influence scores than K-FAC (weaker than published).",
        "LDS of the Hessian minus LDS of K-FAC",
        contrasts=_total,
        effect=_loss,
        against="reversed",
    ),
    Claim(
        "error",
        f"{MISMATCH} accounts for the majority of the error "
        "(squared Frobenius error of K-FAC against the Hessian).",
        "share of the eigenvalue step in ‖H − K‖² (paper: increase of ‖H − X‖²), against 0.5",
        of="frobenius",
    ),
    Claim(
        "inverse_error",
        f"{MISMATCH} accounts for the majority of the error "
        "(misaligned damped solutions for the query gradients).",
        "share of the eigenvalue step in 1 − cos² of the solutions, against 0.5",
        of="solutions",
    ),
    Claim(
        "residual",
        f"{MISMATCH} accounts for the majority of the error "
        "(residual of the inverse over training gradients, Eq. 9).",
        "share of the eigenvalue step in what the chain adds to the residual, against 0.5",
        contrasts=_majority,
        given=_total,
        effect=_share,
        of="residual",
    ),
    Claim(
        "loss",
        f"{MISMATCH} accounts for the majority of the influence loss.",
        "share of the eigenvalue step in the LDS that the chain loses, against 0.5",
        contrasts=_majority,
        given=_total,
        effect=_share,
    ),
    Claim(
        "largest",
        f"{MISMATCH} is the costliest step (weaker than published).",
        "LDS lost by the eigenvalue step minus the most that another step loses, or 0",
        contrasts=_costliest,
        effect=_lead,
    ),
)
"""The paper's claims; the second and the last are weaker forms of the others, and ours."""

SUPPORTED, NOT_RESOLVED, CONTRADICTED = 1, 0, -1
OUTCOMES = {"supported": SUPPORTED, "not resolved": NOT_RESOLVED, "contradicted": CONTRADICTED}
CHAINS: Mapping[str, Sequence[Step]] = {"": CHAIN, "paper, ": PAPER_CHAIN}
"""Prefix of a protocol's name → chain."""
RESAMPLES = 2000
"""Of cells, or of gradients."""


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


def claims_group(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """Group ``/claims`` of cells, over the protocols that all of them have.

    Args:
        trees: of ``pipeline.compute_cell``.
        level: coverage of the intervals.

    Returns:
        None where a cell has no levels of the chain.
    """
    read = read_levels(trees)
    if read is None:
        return None
    errors = [tree["spectral_error"].to_dataset() for tree in trees]
    residuals = [tree["residuals"].to_dataset() if "residuals" in tree else None for tree in trees]
    cells = [_Cell(*every) for every in zip(read, errors, residuals, strict=True)]
    names, rows, neighbours = [], [], []
    for prefix, chain in CHAINS.items():
        nodes = {node for step in chain for node in (step.before, step.after)}
        if all(nodes <= set(one.levels.nodes) for one in cells):
            for protocol in shared_protocols([one.levels for one in cells]):
                names.append(prefix + protocol)
                rows.append([_test(claim, cells, chain, protocol, level) for claim in CLAIMS])
                neighbours.append(_neighbours(cells, chain, protocol, level))
    if not rows:
        return None
    table = [[row[i] for row in rows] for i in range(len(CLAIMS))]

    def stack(name: str) -> NDArray[np.float64]:
        return np.array([[getattr(tested, name) for tested in row] for row in table])

    verdict = stack("verdict").astype(np.int8)
    # what a protocol does not have, or has no meaning, is in no cell's favour, nor unresolved
    tested = np.isfinite(stack("p_value")) | np.isfinite(stack("effect")[..., 1])
    counts = np.stack([(tested & (verdict == v)).sum(-1) for v in OUTCOMES.values()], -1)
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
            "neighbours": (("protocol", "cell", "outcome"), np.stack(neighbours)),
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
            "against": json.dumps({claim.name: claim.against for claim in CLAIMS}),
            "chains": json.dumps(
                {prefix: [step.name for step in chain] for prefix, chain in CHAINS.items()}
            ),
        },
    )


@dataclass(frozen=True)
class _Cell:
    """What is known of one."""

    levels: Levels
    errors: xr.Dataset
    """``/spectral_error``."""
    residuals: xr.Dataset | None
    """``/residuals``."""

    def drops(self, claim: Claim, chain: Sequence[Step], protocol: str) -> Drops:
        """Of what a claim is about; NaN where that is not known."""
        if claim.of == "lds":
            return drops(self.levels.of(protocol), self.levels.nodes, chain)
        data = self.residuals
        if data is None or protocol not in data["protocol"].values:
            return residual_drops(None, None, chain)
        return residual_drops(data, data["under"].sel(protocol=protocol), chain)


def residual_drops(
    residuals: xr.Dataset | None, values: xr.DataArray | None, chain: Sequence[Step]
) -> Drops:
    """What every step of a chain adds to the residual; NaN where that is not known.

    Args:
        residuals: ``/residuals`` of a cell.
        values: some of it, (metric, rung, vector) at one damping of each rung.
        chain: steps; the residual is known of those of the chain alone.
    """
    if residuals is None or values is None or tuple(chain) != CHAIN:
        return Draws(np.full(len(chain), np.nan), np.full((1, len(chain)), np.nan))
    levels = residual_levels(values, residuals, RESIDUAL, RESAMPLES, 0)
    return drops(levels, NODES, chain)


def _test(
    claim: Claim, cells: Sequence[_Cell], chain: Sequence[Step], protocol: str, level: float
) -> Tested:
    if claim.exact:
        return _exact(claim, cells, chain, protocol, level)
    assert claim.effect is not None
    steps = [step.name for step in chain]
    found = [one.drops(claim, chain, protocol) for one in cells]
    alpha = 0.5 * (1.0 - level)
    p_values = np.array([sides(claim, drop, steps) for drop in found])  # (K, 2)
    adjusted = np.stack([holm(side) for side in p_values.T], -1)
    verdict = decide(adjusted, alpha)
    known = [one for one in found if np.isfinite(one.estimate).all()]
    mean = mean_over_cells(known or found)
    pooled = int(decide(np.array([sides(claim, mean, steps)]), alpha)[0])
    if claim.everywhere:
        tested = verdict[np.isfinite(adjusted).any(1)]
        pooled = int(tested[0]) if len(set(tested.tolist())) == 1 else NOT_RESOLVED
        pooled = CONTRADICTED if (tested == CONTRADICTED).any() else pooled
    return Tested(
        np.stack([claim.effect(drop, steps, level) for drop in found]),
        np.fmin(adjusted[:, 0], adjusted[:, 1]),
        verdict,
        claim.effect(mean, steps, level),
        pooled,
    )


def _neighbours(
    cells: Sequence[_Cell], chain: Sequence[Step], protocol: str, level: float
) -> NDArray[np.float64]:
    """(K, 3) share of the pairs of neighbours whose order holds, is not resolved, is reversed.

    Adjusted by Holm over all pairs of all cells. A chain without a reversal is consistent in the
    sense of ≥.
    """
    own = _of_curvature([step.name for step in chain])
    found = [drops(one.levels.of(protocol), one.levels.nodes, chain)[own] for one in cells]
    both = [(_p_positive(one), _p_positive(Draws(-one.estimate, -one.draws))) for one in found]
    p_values = np.array(both).transpose(0, 2, 1)  # (K, S, 2)
    adjusted = np.stack([holm(side) for side in p_values.reshape(-1, 2).T], -1)
    verdict = decide(adjusted, 0.5 * (1.0 - level)).reshape(p_values.shape[:2]).astype(float)
    verdict[np.isnan(p_values).any(2)] = np.nan
    counts = np.stack([(verdict == value).sum(1) for value in OUTCOMES.values()], -1)
    known = np.isfinite(verdict).sum(1)[:, None]
    return np.where(known, counts / np.maximum(known, 1), np.nan)


def sides(claim: Claim, drop: Draws, steps: Sequence[str]) -> tuple[float, float]:
    """One-sided p-values that speak for the claim and against it; NaN where it has no meaning.

    A level that is not known leaves nothing to support it, but others may speak against it.
    """
    assert claim.contrasts is not None
    contrasts = drop.combine(claim.contrasts(steps))
    needed = 0.0
    if claim.given is not None:
        given = drop.combine(claim.given(steps))
        if not (given.estimate > 0).all():
            return np.nan, np.nan
        needed = float(_p_positive(given).max())
    for_it = float(_p_positive(contrasts).max())
    negative = _p_positive(Draws(-contrasts.estimate, -contrasts.draws))
    negative = negative[np.isfinite(negative)]
    against = min(1.0, len(negative) * float(negative.min())) if len(negative) else np.nan
    return float(np.maximum(for_it, needed)), float(np.maximum(against, needed))


def _p_positive(contrasts: Draws) -> NDArray[np.float64]:
    """(K,) p-value of each contrast being positive; NaN where it is undefined."""
    below, count = (contrasts.draws <= 0).sum(0), len(contrasts.draws)
    mean, spread = contrasts.draws.mean(0), contrasts.draws.std(0)
    ends = np.copysign(np.inf, mean)  # of what is exact
    tail = norm.sf(np.divide(mean, spread, out=ends, where=spread > 0))
    p = np.where(below > 0, (1.0 + below) / (1.0 + count), np.minimum(tail, 1.0 / (1.0 + count)))
    return np.where(np.isnan(contrasts.estimate), np.nan, p)


def decide(p_values: NDArray[np.float64], alpha: float) -> NDArray[np.int64]:
    """Verdicts (K,) from p-values (K, 2) for a claim and against it."""
    return np.where(
        p_values[:, 0] <= alpha,
        SUPPORTED,
        np.where(p_values[:, 1] <= alpha, CONTRADICTED, NOT_RESOLVED),
    )


def _exact(
    claim: Claim, cells: Sequence[_Cell], chain: Sequence[Step], protocol: str, level: float
) -> Tested:
    """A share of an exact error: known without error in a cell; over cells, their spread."""
    shares = np.array([_exact_share(claim, one, chain, protocol) for one in cells])
    rows = np.random.default_rng((0, 41)).integers(len(cells), size=(RESAMPLES, len(cells)))
    pooled = Draws(shares.mean(), shares[rows].mean(1)).interval(level)
    verdict = np.sign(np.nan_to_num(shares - 0.5)).astype(np.int64)
    overall = SUPPORTED if pooled[0] > 0.5 else CONTRADICTED if pooled[2] < 0.5 else NOT_RESOLVED
    nothing = np.full(len(cells), np.nan)
    return Tested(np.repeat(shares[:, None], 3, 1), nothing, verdict, pooled, overall)


def _exact_share(claim: Claim, one: _Cell, chain: Sequence[Step], protocol: str) -> float:
    if claim.of == "frobenius" and tuple(chain) == CHAIN:  # additive, with its cross term
        squared = one.errors["squared_error"].mean("probe")
        total = float(squared.sum())
        return float(squared.sel(step=BLAMED)) / total if total else float("nan")
    error = (
        one.errors["value"].sel(metric="relative_frobenius") ** 2  # no additive split: the increase
        if claim.of == "frobenius"
        else one.errors["misaligned_solutions"].reindex(protocol=[protocol])[0]  # not of a rule
    )
    step = next(step for step in chain if step.name == BLAMED)
    nodes = (step.before, step.after, chain[-1].after)
    before, after, whole = (float(error.reindex(rung=[node])[0]) for node in nodes)
    return (after - before) / whole if whole > 0 else float("nan")
