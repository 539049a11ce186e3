"""Simulated studies with known population LDS, and the slow bootstraps to compare with.

Truth z_jq is standard normal over masks with a factor common to the queries; node c predicts
a_cq z + √(1 − a²) e with e partly shared between nodes; measured outputs are the mean of R
repeats with noise. Then the population Spearman of (c, q) is (6/π) asin(a_cq √rel / 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Population:
    """What studies are drawn from."""

    fidelity: tuple[float, ...] = (0.75, 0.72, 0.55, 0.5, 0.45)
    """Mean correlation a of every node with the noise-free truth."""
    spread: float = 0.1
    """Standard deviation of a between queries, common to the nodes."""
    own_spread: float = 0.05
    """The same, of each node on its own."""
    common: float = 0.2
    """Share of the variance over masks that all queries share."""
    noise: float = 0.5
    """Variance of one repeat's noise, relative to the truth's."""

    def levels(self, repeats: int) -> Floats:
        """Population LDS (nodes,), by quadrature over a."""
        points = norm.ppf((np.arange(4000) + 0.5) / 4000)
        width = np.hypot(self.spread, self.own_spread)
        a = np.clip(np.array(self.fidelity)[:, None] + width * points, -0.97, 0.97)
        reliable = np.sqrt(1.0 / (1.0 + self.noise / repeats))
        return (6.0 / np.pi * np.arcsin(a * reliable / 2.0)).mean(-1)

    def study(
        self, masks: int, queries: int, repeats: int, seed: tuple[int, ...]
    ) -> tuple[Floats, Floats]:
        """Predictions (nodes, M, Q) and truth (M, R, Q) of one study."""
        random = np.random.default_rng(seed)
        nodes = len(self.fidelity)
        a = np.array(self.fidelity)[:, None] + self.spread * random.normal(size=queries)
        a = np.clip(a + self.own_spread * random.normal(size=(nodes, queries)), -0.97, 0.97)
        z = self._over_masks(random, (masks, queries))
        shared = self._over_masks(random, (masks, queries))
        own = self._over_masks(random, (nodes, masks, queries))
        error = np.sqrt(0.7) * shared + np.sqrt(0.3) * own
        prediction = a[:, None] * z + np.sqrt(1 - a**2)[:, None] * error
        noise = np.sqrt(self.noise) * random.normal(size=(masks, repeats, queries))
        return prediction, z[:, None] + noise

    def _over_masks(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        factor = random.normal(size=(*shape[:-1], 1))
        own = random.normal(size=shape)
        return np.sqrt(self.common) * factor + np.sqrt(1 - self.common) * own


def weighted_spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Spearman's ρ (B,) of x, y (M,) under weights (B, M), ranks taken anew in every resample."""
    total = weights.sum(1, keepdims=True)

    def ranks(values: Floats) -> Floats:
        below = (values[:, None] < values) + 0.5 * (values[:, None] == values)
        return weights @ below / total - 0.5

    f, g = ranks(x), ranks(y)
    return (weights * f * g).sum(1) / np.sqrt((weights * f * f).sum(1) * (weights * g * g).sum(1))


def fixed_rank_correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted correlation (B,) of ranks that stay those of the full sample."""
    f, g = np.argsort(np.argsort(x)) + 0.0, np.argsort(np.argsort(y)) + 0.0
    total = weights.sum(1)

    def mean(values: Floats) -> Floats:
        return weights @ values / total

    covariance = mean(f * g) - mean(f) * mean(g)
    return covariance / np.sqrt((mean(f * f) - mean(f) ** 2) * (mean(g * g) - mean(g) ** 2))
