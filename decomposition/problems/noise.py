"""Label noise with a known rate, nested: what is wrong at a small rate is wrong at a larger one.

The draws of row i depend on the seed and on its place in the seeded permutation alone, so that
a row keeps its wrong class, or its direction of noise, whatever the rate and the subset.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from decomposition.errors import ProblemError

STREAM = 1


def wrong_labels(
    labels: Int[np.ndarray, "N ..."], classes: int, rate: float, seed: int
) -> Int[np.ndarray, "N ..."]:
    """``labels`` with round(rate · N) of them replaced, uniformly among the other classes.

    A row with several labels (one for each position) has all of them replaced or none.

    Raises:
        ProblemError: the rate is not a fraction.
    """
    if not 0 <= rate <= 1:
        raise ProblemError(
            f"label_noise is the fraction of wrong labels and must lie in [0, 1], got {rate}"
        )
    # One pair of draws per row, in turn: the first N rows draw the same whatever follows them.
    draws = np.random.default_rng((seed, STREAM)).random((len(labels), 2))
    shift = 1 + np.floor(draws[:, 1] * (classes - 1)).astype(labels.dtype)
    wrong = np.argsort(draws[:, 0], kind="stable")[: round(rate * len(labels))]
    noisy = labels.copy()
    shift = shift.reshape(-1, *(1 for _ in labels.shape[1:]))
    noisy[wrong] = (labels[wrong] + shift[wrong]) % classes
    return noisy


def noisy_targets(
    targets: Float[np.ndarray, "N C"], deviations: float, seed: int
) -> Float[np.ndarray, "N C"]:
    """y + ``deviations`` · std(y) · z with z standard normal and fixed by the seed."""
    z = np.random.default_rng((seed, STREAM)).standard_normal(targets.shape)
    return targets + deviations * targets.std(0) * z
