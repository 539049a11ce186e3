"""Scores of a rung in its eigenbasis: keeping gradients in eigen-coordinates instead of matrices
lets hundreds of dampings be scored without a P × P matrix in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from decomposition.curvature.damped import DampedSpectrum
from decomposition.curvature.operator import Diagonalised
from decomposition.damping import NegativeCurvature
from decomposition.errors import DampingError
from decomposition.linalg import from_numpy, product
from decomposition.scores.gradients import GradientSource, StreamedGradients
from decomposition.scores.scorer import Scorer, Subset, Treatment, single, treatment

ROTATED_NUMBERS = 2**28
"""Numbers in the training gradients that are kept in an eigenbasis, or in their sums: 1 GB."""


class RotatedGradients:
    """Gradients in one eigenbasis, float32; rungs that share the basis share these.

    Training gradients are rotated one by one where they fit. Of a larger problem the sums over
    subsets are, of which there are fewer, and scores of single examples take their gradients.
    """

    def __init__(
        self, curvature: Diagonalised, source: GradientSource, by_sums: StreamedGradients | None
    ) -> None:
        """Rotate the gradients once."""
        self._basis, self._by_sums = curvature, by_sums
        parts = [single(curvature.to_basis(part)) for part in source.query_parts(source.queries)]
        self.query: Float[np.ndarray, "P Q"] = np.concatenate(parts, 1)
        self._train: Float[np.ndarray, "N P"] | None = None
        if by_sums is None:
            self._train = np.concatenate(
                [single(curvature.to_basis(part)).T for part in source.train_parts()]
            )
        self._sums: tuple[np.ndarray, np.ndarray] | None = None

    @staticmethod
    def fitting(
        curvature: Diagonalised, source: GradientSource, masks: int
    ) -> RotatedGradients | None:
        """In the form that fits, for so many subsets; None where none does."""
        if not isinstance(source, StreamedGradients):
            return RotatedGradients(curvature, source, None)
        fewest = max(source.queries, min(source.examples, masks or source.examples))
        if curvature.size * fewest > ROTATED_NUMBERS:
            return None
        single = curvature.size * source.examples <= ROTATED_NUMBERS
        return RotatedGradients(curvature, source, None if single else source)

    def along(self, w: Float[np.ndarray, "P Q"]) -> Float[np.ndarray, "N Q"]:
        """(Vᵀ g_i)ᵀ w of every training example."""
        if self._by_sums is None:
            assert self._train is not None
            return product(self._train, w)
        directions = self._basis.from_basis(from_numpy(w.astype(np.float64), self._basis.device))
        return single(self._by_sums.along(directions.float())).T

    def sums(self, masks: Bool[np.ndarray, "M N"]) -> Float[np.ndarray, "M P"]:
        """Σ_{i ∈ S_j} Vᵀ g_i, kept for the masks seen last."""
        if self._sums is None or self._sums[0] is not masks:
            if self._by_sums is None:
                assert self._train is not None
                found = product(masks.astype(np.float32), self._train)
            else:
                summed = self._by_sums.summed(masks)
                found = single(self._basis.to_basis(summed.double())).T
            self._sums = masks, np.ascontiguousarray(found)
        return self._sums[1]


Rotations = dict[object, RotatedGradients]
"""Key of a basis → gradients in it."""


class SpectralScorer(Scorer):
    """A rung in its eigenbasis: a new damping costs one diagonal scaling and one product."""

    def __init__(self, spectrum: DampedSpectrum, rotated: RotatedGradients) -> None:
        """Give the rotated gradients their eigenvalues."""
        self.unsolved: dict[Treatment, str] = {}
        self.spectrum = spectrum
        self.damping_free = spectrum.blind_to_damping()
        self._rotated = rotated

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(Vᵀ g_q)ᵀ diag(1/d) (Vᵀ g_i) / N."""
        with np.errstate(over="ignore", invalid="ignore"):  # told by whoever reads them
            along = self._rotated.along(self._scaled_query(damping, negative))
            return along.T / np.float32(len(along))

    def predicted_effects(
        self,
        masks: np.ndarray,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """The sum over S_j is taken in eigen-coordinates, once for all dampings."""
        with np.errstate(over="ignore", invalid="ignore"):
            sums = self._rotated.sums(masks)
            found = product(sums, self._scaled_query(damping, negative))
            return found / np.float32(-masks.shape[1])

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "K M Q"]:
        """Sums over subsets of the eigen-coordinates."""
        sums, query = self._rotated.sums(masks), self._scaled_query(damping, negative)
        scale = np.float32(-masks.shape[1])
        return np.stack([product(sums[:, one], query[one]) / scale for one in subsets])

    def _scaled_query(self, damping: float, negative: str | NegativeCurvature) -> np.ndarray:
        """NaN where the rung is singular, or no eigenvalue is left."""
        assert self.spectrum is not None
        try:
            inverse = self.spectrum.inverse(damping, negative)
        except DampingError as error:
            self.unsolved[treatment(damping, negative)] = str(error)
            return np.full_like(self._rotated.query, np.nan)
        return self._rotated.query * single(inverse)[:, None]
