"""The paired hierarchical bootstrap of LDS over masks, queries and base models.

One resample is a weight per mask, per query and per base model; every cell sees the same
weights, so differences between cells keep their pairing. With ψ̄ the mask effects and
ρ_q the per-query values of `linearise`, a resample of the level θ = mean ρ_q is

    θ* = θ + (1/M) Σ_j (w_j − 1) ψ̄_j + (1/Q) Σ_q (v_q − 1) T (ρ_q − θ)
           + (K (K−1))^(−1/2) Σ_k u_k (θ_k − θ)

so two thousand resamples of hundreds of cells are one GEMM.

T: a query's ρ_q scatters around θ because queries differ and because it is measured on
finitely many masks. The second part is already in the mask term; resampling rows and columns
of a table freely counts it three times (Owen 2007, "The pigeonhole bootstrap", Theorem 3),
which makes intervals too wide exactly where masks are few. T is the symmetric-in-Σ map that
turns the observed covariance Σ of ρ_q between cells into the positive part of Σ − noise, so
each component of variance is counted once; for every contrast of cells the variance stays
between the unbiased two-way estimate and the uncorrected one.

Retraining repeats are nested in masks (their seeds differ from mask to mask), and their noise
is part of what differs between masks: a resampled mask brings its repeats along, and resampling
them again would count that noise twice and attenuate ρ (Davison & Hinkley 1997, §3.8).

w and v are multinomial counts. Base models are few, and a multinomial over three or five of
them is far too narrow, so u_k is Gaussian over an independent χ: the study part is Student's t
with K−1 degrees of freedom. With one base model the interval is conditional on it.

Spearman's ρ of M masks is itself biased by 3 (τ − ρ) / (M + 1), with τ Kendall's correlation:
−0.0005 at ρ = 0.5 and M = 1,000. The level is the LDS as defined, so that is left in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from decomposition.linalg import product
from decomposition.scores.lds import LinearisedLDS, ScoreError


@dataclass(frozen=True)
class Draws:
    """Estimates with their joint bootstrap distribution; axes after the first are cells."""

    estimate: NDArray[np.float64]
    """(…) the estimate."""
    draws: NDArray[np.float64]
    """(B, …) resampled estimates."""

    def __getitem__(self, index: object) -> Draws:
        """The cells at `index`."""
        inner = index if isinstance(index, tuple) else (index,)
        return Draws(self.estimate[inner], self.draws[(slice(None), *inner)])  # type: ignore[index]

    def combine(self, weights: NDArray[np.float64]) -> Draws:
        """Linear combinations along the last cell axis: weights (K, C) → cells (…, K).

        A cell that is NaN spoils only the combinations that it enters.
        """
        return Draws(_combined(self.estimate, weights), _combined(self.draws, weights))

    def minus(self, other: Draws) -> Draws:
        """Paired difference of the same cells."""
        return Draws(self.estimate - other.estimate, self.draws - other.draws)

    def interval(self, level: float = 0.95) -> NDArray[np.float64]:
        """(…, 3): lower bound, estimate, upper bound of the percentile interval.

        Raises:
            ScoreError: `level` is not inside (0, 1).
        """
        if not 0.0 < level < 1.0:
            raise ScoreError(f"an interval's level must lie inside (0, 1), got {level}")
        tail = 50.0 * (1.0 - level)
        lower, upper = np.percentile(self.draws, [tail, 100.0 - tail], axis=0)
        return np.stack([lower, self.estimate, upper], axis=-1)

    def variance(self) -> NDArray[np.float64]:
        """(…) bootstrap variance."""
        return self.draws.var(axis=0)


def mean_over_cells(cells: Sequence[Draws]) -> Draws:
    """Mean of several cells' draws: paired where the cells have one design, else independent."""
    count = min(len(one.draws) for one in cells)
    return Draws(
        np.mean([one.estimate for one in cells], axis=0),
        np.mean([one.draws[:count] for one in cells], axis=0),
    )


@dataclass(frozen=True)
class Resamples:
    """Weights of B resamples, the same for every cell of a study."""

    masks: NDArray[np.float64]
    """(B, M) multinomial counts."""
    queries: NDArray[np.float64]
    """(B, Q) multinomial counts."""
    studies: NDArray[np.float64]
    """(B, K) Gaussian over an independent √(χ²_{K−1} / (K−1)); zero for K = 1."""


def resample(
    masks: int, queries: int, studies: int = 1, count: int = 2000, seed: tuple[int, ...] = (0,)
) -> Resamples:
    """Draw `count` resamples; the same arguments give the same weights.

    Raises:
        ScoreError: a size is below one.
    """
    sizes = {"masks": masks, "queries": queries, "studies": studies, "resamples": count}
    for name, size in sizes.items():
        if size < 1:
            raise ScoreError(f"a bootstrap needs at least one of {name}, got {size}")
    streams = [np.random.default_rng((*seed, stream)) for stream in range(3)]
    counts = [
        stream.multinomial(size, np.full(size, 1.0 / size), size=count).astype(float)
        for stream, size in zip(streams, (masks, queries), strict=False)
    ]
    return Resamples(counts[0], counts[1], over_few(studies, count, streams[2]))


def over_few(
    size: int, count: int, generator: np.random.Generator
) -> Float[np.ndarray, "count size"]:
    """Weights of deviations of a few: Gaussian over √(χ²_{size−1} / (size−1)); zero for one."""
    freedom = size - 1
    if not freedom:
        return np.zeros((count, size))
    weights = generator.normal(size=(count, size))
    return weights / np.sqrt(generator.chisquare(freedom, size=(count, 1)) / freedom)


@dataclass(frozen=True)
class VarianceParts:
    """Covariance of the levels between cells, by what it comes from; each (C, C)."""

    masks: NDArray[np.float64]
    """Falls as 1/M."""
    queries: NDArray[np.float64]
    """Falls as 1/Q; more masks do not touch it."""
    studies: NDArray[np.float64]
    """Falls as 1/K; zero for a single base model, which the interval is conditional on."""

    def __getitem__(self, cells: NDArray[np.intp]) -> VarianceParts:
        """The parts for some of the cells, by flat index."""
        return VarianceParts(
            *(part[np.ix_(cells, cells)] for part in (self.masks, self.queries, self.studies))
        )

    def contrast(self, weights: NDArray[np.float64]) -> tuple[float, float, float]:
        """Variance of Σ_c weights_c · level_c from masks, queries and studies."""
        parts = (self.masks, self.queries, self.studies)
        # A variance: rounding may take that of equal cells below zero.
        masks, queries, studies = (max(float(weights @ part @ weights), 0.0) for part in parts)
        return masks, queries, studies


def bootstrap(linear: LinearisedLDS, weights: Resamples) -> Draws:
    """Resampled LDS levels of all cells: estimate (*cells), draws (B, *cells).

    Raises:
        ScoreError: the weights were drawn for other numbers of masks, queries or studies.
    """
    (masks, queries, studies) = _sizes(linear)
    for name, size, array in (
        ("masks", masks, weights.masks),
        ("queries", queries, weights.queries),
        ("studies", studies, weights.studies),
    ):
        if array.shape[1] != size:
            raise ScoreError(f"resamples of {array.shape[1]} {name} do not fit {size} {name}")
    estimate = linear.mean
    draws = estimate + product(weights.masks - 1.0, linear.mask_effects.T / masks)
    draws += product(weights.queries - 1.0, _query_effects(linear).T / queries)
    draws += weights.studies @ _study_effects(linear)
    return Draws(estimate.reshape(linear.cells), draws.reshape(-1, *linear.cells))


def variance_parts(linear: LinearisedLDS) -> VarianceParts:
    """The variance that `bootstrap` draws from, split by source."""
    masks, queries, _ = _sizes(linear)
    query = _query_effects(linear)
    study = _study_effects(linear)
    return VarianceParts(
        linear.mask_effects @ linear.mask_effects.T / masks**2,
        query @ query.T / queries**2,
        study.T @ study,
    )


def _combined(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    missing = np.isnan(values)
    if not missing.any():
        return values @ weights.T
    spoiled = missing.astype(float) @ (weights.T != 0) > 0
    return np.where(spoiled, np.nan, np.where(missing, 0.0, values) @ weights.T)


def _sizes(linear: LinearisedLDS) -> tuple[int, int, int]:
    return linear.mask_effects.shape[1], linear.per_query.shape[1], linear.per_study.shape[0]


def _study_effects(linear: LinearisedLDS) -> NDArray[np.float64]:
    """(K, C) deviations of the studies, scaled so that their squares sum to S²/K."""
    studies = linear.per_study.shape[0]
    deviation = linear.per_study - linear.per_study.mean(0)
    return deviation / np.sqrt(max(studies * (studies - 1), 1))


def _query_effects(linear: LinearisedLDS) -> NDArray[np.float64]:
    """(C, Q) T (ρ_q − θ); queries without a defined ρ have none."""
    deviation = linear.per_query - linear.mean[:, None]
    defined = ~np.isnan(deviation)
    queries = deviation.shape[1]
    deviation = np.where(defined, deviation, 0.0)
    deviation *= queries / np.maximum(defined.sum(1, keepdims=True), 1)
    observed = deviation @ deviation.T / queries
    values, vectors = np.linalg.eigh(observed)
    kept = values > values[-1] * 1e-12
    if not kept.any():
        return deviation
    root, basis = np.sqrt(values[kept]), vectors[:, kept]
    whitener = basis / root
    excess, turned = np.linalg.eigh(np.eye(len(root)) - whitener.T @ linear.noise @ whitener)
    shrink = (turned * np.sqrt(np.clip(excess, 0.0, 1.0))) @ turned.T
    return (basis * root) @ (shrink @ (whitener.T @ deviation))
