"""Agreement of two sets of scores, query by query: rank correlation and shared top examples.

Shapes: scores (Q, N), one row per query, one column per training example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from decomposition.scores.lds import ScoreError, mean_defined
from decomposition.scores.ranks import Floats, correlation, rank
from decomposition.scores.scorer import Scorer


@dataclass(frozen=True)
class Agreement:
    """Agreement of scores with those of a reference rung."""

    spearman: float
    """Mean over queries of Spearman's ρ over examples; NaN where all are constant."""
    top_jaccard: float
    """Mean over queries of |A ∩ B| / |A ∪ B| for the sets of top examples."""
    top: int
    """Size of the sets."""


def agreement(scores: Floats, reference: Floats, top: int = 10) -> Agreement:
    """Agreement of `scores` with `reference`, both (Q, N).

    The top examples of a query are those of largest τ: the ones whose removal is predicted to
    raise the loss most. Equal scores go to the lower index.

    Raises:
        ScoreError: shapes differ, or `top` is not within 1 … N.
    """
    if scores.ndim != 2 or scores.shape != reference.shape:
        raise ScoreError(
            f"scores to compare must share one shape (queries, examples), got {scores.shape} "
            f"and {reference.shape}"
        )
    if not 1 <= top <= scores.shape[1]:
        raise ScoreError(f"top must lie in 1 … {scores.shape[1]} examples, got {top}")
    rho = correlation(rank(scores), rank(reference))
    mine, theirs = top_examples(scores, top), top_examples(reference, top)
    shared = (mine[:, :, None] == theirs[:, None, :]).sum((1, 2))
    jaccard = shared / (2 * top - shared)
    return Agreement(float(mean_defined(rho)), float(jaccard.mean()), top)


def top_examples(scores: Floats, top: int) -> NDArray[np.intp]:
    """Indices (Q, top) of the largest scores of every query, largest first."""
    # Only the few candidates that reach the top-th largest value are sorted.
    threshold = -np.partition(-scores, top - 1, axis=-1)[:, top - 1 : top]
    found = np.empty((len(scores), top), np.intp)
    for query, reached in enumerate(scores >= threshold):
        candidates = np.flatnonzero(reached)
        order = np.argsort(-scores[query, candidates], kind="stable")
        found[query] = candidates[order[:top]]
    return found


TOP = 10
STRIDE = 2
"""Agreement is measured at every second damping: it is smooth in log λ."""


def add_agreement(
    data: xr.Dataset, scorers: Mapping[str, Scorer], reference: str, negative: str
) -> None:
    """Spearman over training examples and top-10 Jaccard, at every second damping of ``data``.

    The curves are smooth in log λ; in between is NaN, as where a rung was not solved. A reference
    that was solved nowhere gives way to the first rung that was; the attribute
    ``agreement_with`` names it.
    """
    dampings = data["damping"].values.tolist()
    shown = range(0, len(dampings), STRIDE)

    def scores(node: str, places: Iterable[int]) -> dict[int, np.ndarray]:
        asked = [dampings[j] for j in places]
        scorers[node].prepare(None, asked, asked, negative)
        found = {j: scorers[node].scores(dampings[j], negative) for j in places}
        return {j: one for j, one in found.items() if np.isfinite(one).all()}

    exact = scores(reference, shown)
    for node in scorers:
        if exact:
            break
        reference, exact = node, scores(node, shown)
    table = np.full((2, len(scorers), len(dampings)), np.nan)
    for i, node in enumerate(scorers):
        if node == reference:
            table[:, i, list(exact)] = 1.0
            continue
        for j, mine in scores(node, exact).items():
            found = agreement(mine, exact[j], min(TOP, mine.shape[1]))
            table[:, i, j] = found.spearman, found.top_jaccard
    data.coords["agreement_metric"] = ["spearman", f"top{TOP}_jaccard"]
    data["agreement"] = (("agreement_metric", "rung", "damping"), table)
    data.attrs["agreement_with"] = reference


def agreement_group(
    scorers: Mapping[str, Scorer], dampings: np.ndarray, reference: str, negative: str
) -> xr.Dataset:
    """``/attribution`` where there is no truth: agreement alone."""
    data = xr.Dataset(coords={"rung": list(scorers), "damping": dampings})
    add_agreement(data, scorers, reference, negative)
    return data
