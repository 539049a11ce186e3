"""What is left of a rung once its eigenbasis has been used: enough to score it at any damping.

Keeping the gradients in eigen-coordinates instead of the matrices lets hundreds of damping values
be scored without the P × P matrices in memory. Coordinates are kept in float32 (relative rounding
6e-8, far below what a rank correlation over 1,000 masks can see); ``influence_scores`` itself
computes in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from decomposition.attribution.influence import Gradients, random_scores
from decomposition.curvature.base import Curvature, Diagonalised
from decomposition.damping import NegativeCurvature, check_damping, inverse_eigenvalues
from decomposition.linalg import matmul


class Scorer(ABC):
    """Influence scores of one rung, float32."""

    mu: Float[torch.Tensor, " P"] | None = None
    """Eigenvalues in basis order, where they are known."""
    damping_free: bool = False
    """Whether damping changes the scores by no more than a factor, which no rank sees."""

    @abstractmethod
    def scores(
        self, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Float[np.ndarray, "Q N"]:
        """τ at damping λ."""

    def check(self, damping: float, negative: str | NegativeCurvature) -> None:
        """Raise DampingError if the damped rung is singular (where its eigenvalues are known)."""
        if self.mu is not None:
            inverse_eigenvalues(self.mu, check_damping(damping), negative)

    def predicted_effects(
        self,
        masks: Bool[np.ndarray, "M N"],
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "M Q"]:
        """−Σ_{i ∈ S_j} τ[q, i]: predicted loss on q after training on S_j, up to a constant."""
        return -(masks.astype(np.float32) @ self.scores(damping, negative).T)


class SpectralScorer(Scorer):
    """A rung in its eigenbasis: a new damping costs one diagonal scaling and one product."""

    def __init__(self, curvature: Diagonalised, gradients: Gradients) -> None:
        """Rotate the gradients once."""
        self.mu = curvature.basis_values()
        self._train = np.ascontiguousarray(_single(curvature.to_basis(gradients.train)).T)
        self._query = _single(curvature.to_basis(gradients.query))
        self.damping_free = bool((self.mu == self.mu[0]).all())
        self._masked: tuple[np.ndarray, np.ndarray] | None = None

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(Vᵀ g_q)ᵀ diag(1/d) (Vᵀ g_i) / N."""
        return (self._train @ self._scaled_query(damping, negative)).T / np.float32(
            len(self._train)
        )

    def predicted_effects(
        self,
        masks: np.ndarray,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """The sum over S_j is taken in eigen-coordinates, once for all dampings."""
        product = self._sums(masks) @ self._scaled_query(damping, negative)
        return product / np.float32(-len(self._train))

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[np.ndarray | slice],
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "K M Q"]:
        """Predicted effects through each subset of the basis alone; over a partition they add up.

        The scores are sums over eigenvectors, so a layer of a block-diagonal rung, or a band of
        its spectrum, has a part of its own in every prediction.
        """
        masked, query = self._sums(masks), self._scaled_query(damping, negative)
        return np.stack(
            [masked[:, one] @ query[one] / np.float32(-len(self._train)) for one in subsets]
        )

    def _sums(self, masks: np.ndarray) -> Float[np.ndarray, "M P"]:
        """Σ_{i ∈ S_j} Vᵀ g_i, kept for the masks seen last."""
        if self._masked is None or self._masked[0] is not masks:
            self._masked = (masks, masks.astype(np.float32) @ self._train)
        return self._masked[1]

    def _scaled_query(self, damping: float, negative: str | NegativeCurvature) -> np.ndarray:
        assert self.mu is not None
        inverse = inverse_eigenvalues(self.mu, check_damping(damping), negative)
        return self._query * _single(inverse)[:, None]


class SolverScorer(Scorer):
    """A rung known by its solver: every damping is a solve for all queries."""

    def __init__(self, curvature: Curvature, gradients: Gradients) -> None:
        """Keep both; nothing can be prepared."""
        self._curvature, self._gradients = curvature, gradients

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(C_λ⁻¹ g_q)ᵀ g_i / N."""
        solved = self._curvature.solve(self._gradients.query, damping, negative)
        return _single(matmul(solved.T, self._gradients.train)) / self._gradients.train.shape[1]


class FixedScorer(Scorer):
    """Scores that no damping changes: the random baseline."""

    damping_free = True

    def __init__(self, queries: int, examples: int, seed: int) -> None:
        """Draw them."""
        self._scores = _single(random_scores(queries, examples, seed))

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """The same whatever the damping."""
        return self._scores


def scorer(curvature: Curvature, gradients: Gradients) -> Scorer:
    """The cheapest scorer that a rung allows."""
    if isinstance(curvature, Diagonalised):
        return SpectralScorer(curvature, gradients)
    return SolverScorer(curvature, gradients)


def effects_over(
    rung: Scorer,
    masks: Bool[np.ndarray, "M N"],
    dampings: Sequence[float],
    negative: str | NegativeCurvature = "absolute",
) -> Float[np.ndarray, "D M Q"]:
    """Predicted effects at every damping."""
    return np.stack([rung.predicted_effects(masks, damping, negative) for damping in dampings])


def _single(tensor: torch.Tensor) -> np.ndarray:
    return tensor.to(torch.float32).numpy()
