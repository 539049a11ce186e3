"""The noise ceiling: the LDS that a perfect predictor of the expected output would reach.

Let r be Spearman's correlation over masks between two independent measurements of the same
models, each the mean of h repeats. The mean of R repeats then has reliability
(Spearman–Brown) k r / (1 + (k−1) r) with k = R/h, and the ceiling of a query is
√reliability. Averaged over queries with the spread of r between queries kept, to second order:

    mean_q g(r_q) ≈ g(r̄) + ½ g''(r̄) · max(0, Var_q r_q − noise)

A plain mean of g over noisy r_q would be biased downwards, and g(r̄) alone upwards.
Exact for product-moment correlations; for ranks of Gaussian outputs off by less than 0.006.
Sources: Spearman (1910) and Brown (1910); sqrt(reliability) as the bound on a correlation:
Lord & Novick (1968), §3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from decomposition.scores.bootstrap import Draws, Resamples, bootstrap
from decomposition.scores.lds import LinearisedLDS, ScoreError, linearise, mean_truth
from decomposition.scores.ranks import Floats


@dataclass(frozen=True)
class Ceiling:
    """Reliability of the measured outputs and the LDS ceiling that follows from it."""

    agreement: Draws
    """() mean over queries of r, the correlation of two measurements."""
    reliability: Draws
    """() mean over queries of the reliability of the mean of all repeats."""
    ceiling: Draws
    """() mean over queries of √reliability; 0 where r is not positive."""
    source: str
    """`split_half` over repeats or `second_order` of examples."""
    masks: int
    """Number of masks that were measured twice."""


def noise_ceiling(
    truth: Floats,
    second: Floats | None,
    weights: Resamples,
    splits: int = 20,
    seed: tuple[int, ...] = (0,),
) -> Ceiling | None:
    """Ceiling from repeats, or from a second measurement of the first masks; None without both.

    `truth` is (M, R, Q). With R ≥ 2, halves of ⌊R/2⌋ repeats, every split if there are at most
    `splits` of them and that many drawn ones otherwise. With R = 1, `second` (M2, Q) holds the
    first M2 models retrained in another order of examples.

    Raises:
        ScoreError: shapes do not fit or a value is not finite.
    """
    masks, repeats = len(mean_truth(truth)), truth.shape[1]
    if repeats >= 2:
        half = repeats // 2
        pairs = _splits(repeats, half, splits, np.random.default_rng((*seed, 17)))
        first = [truth[:, one].mean(1, dtype=np.float64)[None] for one, _ in pairs]
        other = [truth[:, two].mean(1, dtype=np.float64) for _, two in pairs]
        return _from_agreement(linearise(first, other), repeats / half, weights, "split_half")
    if second is None or len(second) < 2:
        return None
    if second.ndim != 2 or len(second) > masks or second.shape[1] != truth.shape[2]:
        raise ScoreError(
            f"second-order outputs must be (M2 <= {masks}, {truth.shape[2]}), got {second.shape}"
        )
    linear = linearise(truth[None, : len(second), 0], second)
    effects = np.zeros((1, masks))
    effects[:, : len(second)] = linear.mask_effects * (masks / len(second))
    return _from_agreement(
        replace(linear, mask_effects=effects), 1.0, weights, "second_order", len(second)
    )


def prophecy(agreement: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Spearman–Brown: reliability k r / (1 + (k−1) r) of a k times longer measurement."""
    return factor * agreement / (1.0 + (factor - 1.0) * agreement)


def corrected(levels: Draws, ceiling: Draws) -> Draws:
    """Attenuation-corrected levels, LDS / ceiling; NaN where the ceiling is 0."""
    scale = ceiling.draws.reshape(-1, *([1] * levels.estimate.ndim))
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = np.where(scale > 0, levels.draws / scale, np.nan)
        estimate = np.where(ceiling.estimate > 0, levels.estimate / ceiling.estimate, np.nan)
    return Draws(estimate, draws)


def _from_agreement(
    linear: LinearisedLDS, factor: float, weights: Resamples, source: str, masks: int | None = None
) -> Ceiling:
    # Splits entered as studies to be averaged; they are no sample of base models.
    linear = replace(linear, cells=(), per_study=linear.per_study.mean(0, keepdims=True))
    single = replace(weights, studies=np.zeros((len(weights.masks), 1)))
    agreement = bootstrap(replace(linear, cells=(1,)), single)[0]
    defined = linear.per_query[0][~np.isnan(linear.per_query[0])]
    spread = max(0.0, float(defined.var(ddof=1) - linear.noise[0, 0])) if len(defined) > 1 else 0.0
    return Ceiling(
        agreement,
        _averaged(agreement, factor, spread, power=1.0),
        _averaged(agreement, factor, spread, power=0.5),
        source,
        linear.mask_effects.shape[1] if masks is None else masks,
    )


def _averaged(agreement: Draws, factor: float, spread: float, power: float) -> Draws:
    """Mean over queries of (k r / (1 + (k−1) r))^power to second order; 0 for r ≤ 0."""

    def value(r: NDArray[np.float64]) -> NDArray[np.float64]:
        positive = np.where(r > 0, np.minimum(r, 1.0), 1.0)
        base = prophecy(positive, factor)
        slope = factor / (1.0 + (factor - 1.0) * positive) ** 2
        bend = -2.0 * (factor - 1.0) * slope / (1.0 + (factor - 1.0) * positive)
        second = power * (power - 1.0) * base ** (power - 2.0) * slope**2
        second += power * base ** (power - 1.0) * bend
        # Never below half of the plain value: the expansion has no meaning there.
        plain = base**power
        return np.where(r > 0, np.maximum(plain + 0.5 * second * spread, 0.5 * plain), 0.0)

    estimate = np.asarray(value(agreement.estimate))
    draws = value(agreement.draws)
    missing = np.isnan(agreement.estimate)
    return Draws(
        np.where(missing, np.nan, estimate), np.where(np.isnan(agreement.draws), np.nan, draws)
    )


def _splits(
    repeats: int, half: int, most: int, generator: np.random.Generator
) -> list[tuple[list[int], list[int]]]:
    """Pairs of disjoint halves of the repeats: all of them if few, else a seeded sample."""
    if repeats % 2 == 0 and math.comb(repeats, half) // 2 <= most:
        halves = [list(one) for one in combinations(range(repeats), half) if 0 in one]
        return [(one, sorted(set(range(repeats)) - set(one))) for one in halves]
    orders = [generator.permutation(repeats) for _ in range(most)]
    return [(order[:half].tolist(), order[half : 2 * half].tolist()) for order in orders]
