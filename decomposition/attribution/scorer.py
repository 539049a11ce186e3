"""What is left of a rung once its eigenbasis has been used: enough to score it at any damping.

Keeping the gradients in eigen-coordinates instead of the matrices lets hundreds of damping values
be scored without the P × P matrices in memory. Coordinates are kept in float32 (relative rounding
6e-8, far below what a rank correlation over 1,000 masks can see); ``influence_scores`` itself
computes in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from decomposition.attribution.influence import Gradients, random_scores
from decomposition.attribution.lds import summed_effects
from decomposition.curvature.base import Curvature, Diagonalised
from decomposition.curvature.damped import DampedSpectrum
from decomposition.damping import NegativeCurvature
from decomposition.linalg import matmul, to_numpy


class Scorer(ABC):
    """Influence scores of one rung, float32."""

    spectrum: DampedSpectrum | None = None
    """Eigenvalues in basis order and how λ enters their inverse, where they are known."""
    damping_free: bool = False
    """Whether damping changes the scores by no more than a factor, which no rank sees."""

    @property
    def mu(self) -> Float[torch.Tensor, " P"] | None:
        """Eigenvalues in basis order, where they are known."""
        return None if self.spectrum is None else self.spectrum.values

    @abstractmethod
    def scores(
        self, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Float[np.ndarray, "Q N"]:
        """τ at damping λ."""

    def check(self, damping: float, negative: str | NegativeCurvature) -> None:
        """Raise DampingError if the damped rung is singular (where its eigenvalues are known)."""
        if self.spectrum is not None:
            self.spectrum.inverse(damping, negative)

    def predicted_effects(
        self,
        masks: Bool[np.ndarray, "M N"],
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "M Q"]:
        """−Σ_{i ∈ S_j} τ[q, i]: predicted loss on q after training on S_j, up to a constant."""
        return summed_effects(masks, self.scores(damping, negative))


class RotatedGradients:
    """Gradients in one eigenbasis, float32; rungs that share the basis share these."""

    def __init__(self, curvature: Diagonalised, gradients: Gradients) -> None:
        """Rotate the gradients once."""
        self.train: Float[np.ndarray, "N P"] = np.ascontiguousarray(
            _single(curvature.to_basis(gradients.train)).T
        )
        self.query: Float[np.ndarray, "P Q"] = _single(curvature.to_basis(gradients.query))
        self._sums: tuple[np.ndarray, np.ndarray] | None = None

    def sums(self, masks: Bool[np.ndarray, "M N"]) -> Float[np.ndarray, "M P"]:
        """Σ_{i ∈ S_j} Vᵀ g_i, kept for the masks seen last."""
        if self._sums is None or self._sums[0] is not masks:
            self._sums = (masks, masks.astype(np.float32) @ self.train)
        return self._sums[1]


class SpectralScorer(Scorer):
    """A rung in its eigenbasis: a new damping costs one diagonal scaling and one product."""

    def __init__(self, spectrum: DampedSpectrum, rotated: RotatedGradients) -> None:
        """Give the rotated gradients their eigenvalues."""
        self.spectrum = spectrum
        self.damping_free = spectrum.blind_to_damping()
        self._rotated = rotated

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(Vᵀ g_q)ᵀ diag(1/d) (Vᵀ g_i) / N."""
        product = self._rotated.train @ self._scaled_query(damping, negative)
        return product.T / np.float32(len(product))

    def predicted_effects(
        self,
        masks: np.ndarray,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """The sum over S_j is taken in eigen-coordinates, once for all dampings."""
        product = self._rotated.sums(masks) @ self._scaled_query(damping, negative)
        return product / np.float32(-masks.shape[1])

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
        sums, query = self._rotated.sums(masks), self._scaled_query(damping, negative)
        scale = np.float32(-masks.shape[1])
        return np.stack([sums[:, one] @ query[one] / scale for one in subsets])

    def _scaled_query(self, damping: float, negative: str | NegativeCurvature) -> np.ndarray:
        assert self.spectrum is not None
        inverse = self.spectrum.inverse(damping, negative)
        return self._rotated.query * _single(inverse)[:, None]


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


def scorers_of(rungs: Mapping[str, Curvature], gradients: Gradients) -> dict[str, Scorer]:
    """The cheapest scorer that each rung allows; rungs of one basis rotate the gradients once."""
    rotated: dict[object, RotatedGradients] = {}
    found: dict[str, Scorer] = {}
    for name, rung in rungs.items():
        if not isinstance(rung, Diagonalised):
            found[name] = SolverScorer(rung, gradients)
            continue
        key = rung.basis_key()
        if key not in rotated:
            rotated[key] = RotatedGradients(rung, gradients)
        found[name] = SpectralScorer(rung.spectrum(), rotated[key])
    return found


def scorer(curvature: Curvature, gradients: Gradients) -> Scorer:
    """The scorer of a single rung."""
    return scorers_of({"": curvature}, gradients)[""]


def effects_over(
    rung: Scorer,
    masks: Bool[np.ndarray, "M N"],
    dampings: Sequence[float],
    negative: str | NegativeCurvature = "absolute",
) -> Float[np.ndarray, "D M Q"]:
    """Predicted effects at every damping."""
    return np.stack([rung.predicted_effects(masks, damping, negative) for damping in dampings])


def _single(tensor: torch.Tensor) -> np.ndarray:
    return to_numpy(tensor.to(torch.float32))
