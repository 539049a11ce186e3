"""The linear data-modelling score: do predicted effects order the retrained models rightly?

Shapes: masks (M, N), True where an example was kept; truth (M, Q), the measured output of
each retrained model on each query; scores τ (Q, N); predictions (…, M, Q).
Source: Park et al. (2023), "TRAK", §2; Ilyas et al. (2022), "Datamodels".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.errors import DecompositionError
from decomposition.scores.ranks import Floats, correlation, rank

DIVERGED = (
    "the model retrained on this mask diverged; lower Recipe.lr, or leave the model out of the bank"
)
OVERFLOW = "the inverse of the curvature overflows; raise the damping"


class ScoreError(DecompositionError, ValueError):
    """Arrays of masks, scores or measured outputs do not fit together."""


@dataclass(frozen=True)
class LDS:
    """Linear data-modelling scores of one or many predictions."""

    per_query: NDArray[np.float64]
    """(…, Q) Spearman's ρ over masks; NaN where prediction or truth is constant."""
    mean: NDArray[np.float64]
    """(…,) mean over the defined queries; NaN where there is none."""
    undefined: NDArray[np.intp]
    """(…,) number of queries without a defined ρ."""


def mean_truth(truth: Floats) -> NDArray[np.float64]:
    """Mean over retraining repeats: (M, R, Q) → (M, Q).

    Raises:
        ScoreError: wrong number of dimensions, no masks or repeats, or a value not finite.
    """
    if truth.ndim != 3 or 0 in truth.shape:
        raise ScoreError(
            f"measured outputs must have shape (masks, repeats, queries), all at least 1, "
            f"got {truth.shape}"
        )
    _finite(truth, "measured output", ("mask", "repeat", "query"), DIVERGED)
    return truth.mean(axis=1, dtype=np.float64)


def predicted_effects(masks: NDArray[np.bool_], scores: Floats) -> Floats:
    """Predicted outputs −Σ_{i ∈ S_j} τ[q, i], up to a constant per query: (M, Q), by one GEMM.

    τ[q, i] is the change of the output on q when i is removed, so keeping i contributes
    −τ. `scores` is (Q, N); the result has its precision.

    Raises:
        ScoreError: masks and scores disagree on N, or a score is not finite.
    """
    if masks.ndim != 2 or scores.ndim != 2 or masks.shape[1] != scores.shape[1]:
        raise ScoreError(
            f"masks (M, N) and scores (Q, N) must agree on N, got {masks.shape} and {scores.shape}"
        )
    _finite(scores, "score", ("query", "example"), OVERFLOW)
    return summed_effects(masks, scores)


def summed_effects(masks: NDArray[np.bool_], scores: Floats) -> Floats:
    """``predicted_effects`` unchecked: what is not finite counts as not solved."""
    with np.errstate(invalid="ignore", over="ignore"):
        return -(masks.astype(scores.dtype) @ scores.T)


def lds(prediction: Floats, truth: Floats) -> LDS:
    """Spearman's ρ over masks between `prediction` (…, M, Q) and `truth` (M, Q), per query.

    Ties take their mean rank. A query whose truth or prediction is the same for all masks has
    no correlation: NaN, left out of the mean and counted.

    Raises:
        ScoreError: shapes differ, fewer than two masks, or a value is not finite.
    """
    check_prediction(prediction, truth)
    cells = prediction.shape[:-2]
    queries = truth.shape[1]
    per_query = np.empty((*cells, queries))
    for query in range(queries):
        truth_ranks = rank(np.ascontiguousarray(truth[:, query]))
        prediction_ranks = rank(np.ascontiguousarray(prediction[..., query]))
        per_query[..., query] = correlation(prediction_ranks, truth_ranks)
    return LDS(per_query, mean_defined(per_query), np.isnan(per_query).sum(-1))


def mean_defined(per_query: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of (…, Q) over the entries that are not NaN; NaN where there is none."""
    defined = ~np.isnan(per_query)
    count = defined.sum(-1)
    total = np.where(defined, per_query, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def check_prediction(prediction: Floats, truth: Floats) -> None:
    """Raise ScoreError unless `prediction` (…, M, Q) and `truth` (M, Q) fit and are finite."""
    if truth.ndim != 2 or prediction.ndim < 2 or prediction.shape[-2:] != truth.shape:
        raise ScoreError(
            f"predictions must end in the (masks, queries) of the truth {truth.shape}, "
            f"got {prediction.shape}"
        )
    if truth.shape[0] < 2:
        raise ScoreError(
            f"a rank correlation over masks needs at least 2 masks, got {truth.shape[0]}"
        )
    _finite(truth, "measured output", ("mask", "query"), DIVERGED)
    _finite(prediction, "predicted output", ("mask", "query"), OVERFLOW)


def _finite(values: Floats, what: str, axes: tuple[str, ...], cause: str) -> None:
    """``axes`` names the last axes."""
    # The sum is not finite if any entry is not; only then is the entry worth looking for.
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(values.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(values))
    if len(bad) == 0:
        raise ScoreError(f"the sum of every {what} overflows: rescale the outputs")
    own = bad[0][-len(axes) :]  # of rungs and dampings before them a reader knows no numbers
    place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, own, strict=True))
    raise ScoreError(f"{what} at {place} is {values[tuple(bad[0])]}: {cause}")
