"""Scores of a rung in its eigenbasis: keeping gradients in eigen-coordinates instead of matrices
lets hundreds of dampings be scored without a P × P matrix in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float

from decomposition.curvature.damped import DampedSpectrum
from decomposition.curvature.operator import Diagonalised
from decomposition.damping import NegativeCurvature
from decomposition.errors import DampingError
from decomposition.linalg import from_numpy, product
from decomposition.scores.gradients import GradientSource, StreamedGradients
from decomposition.scores.lds import summed_effects
from decomposition.scores.scorer import Scorer, Subset, Treatment, single, treatment

ROTATED_NUMBERS = 2**28
"""Numbers in the training gradients that are kept in an eigenbasis, or in their sums: 1 GB."""
DIRECTIONS = 2**28
"""Numbers in the solutions along which training gradients are taken in one pass: 1 GB."""
One = TypeVar("One")


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
            parts = (single(curvature.to_basis(part)).T for part in source.train_parts())
            self._train = np.concatenate([np.ascontiguousarray(part) for part in parts])
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

    def by_examples(self, masks: Bool[np.ndarray, "M N"]) -> bool:
        """Whether effects of subsets are sums of scores: there are more of them than examples."""
        return self._train is not None and len(masks) >= masks.shape[1]

    def through(self, part: Subset, w: Float[np.ndarray, "P Q"]) -> Float[np.ndarray, "N Q"]:
        """(Vᵀ g_i)ᵀ w by some coordinates alone, of gradients that are kept one by one."""
        assert self._train is not None
        return product(self._train[:, part], w[part])

    @property
    def passes(self) -> bool:
        """Whether scores of single examples take a pass over all training gradients."""
        return self._by_sums is not None

    def along(
        self, ws: Iterator[Float[np.ndarray, "P Q"]], count: int
    ) -> Iterator[Float[np.ndarray, "N Q"]]:
        """(Vᵀ g_i)ᵀ w of every training example, for each of so many w."""
        device, queries = self._basis.device, self.query.shape[1]
        at_once = max(1, DIRECTIONS // self.query.size)
        if self._by_sums is None:
            assert self._train is not None
            for some in batched(ws, max(1, at_once // 2)):  # once more side by side
                together = product(self._train, np.concatenate(some, 1))
                yield from np.split(together, len(some), 1)
            return
        for start in range(0, count, at_once):
            columns = queries * min(at_once, count - start)
            directions = torch.empty(self._basis.size, columns, dtype=torch.float32, device=device)
            for own, w in zip(directions.split(queries, 1), ws, strict=False):
                own.copy_(self._basis.from_basis(from_numpy(w.astype(np.float64), device)))
            products = single(self._by_sums.along(directions))
            yield from (own.T for own in np.split(products, columns // queries))

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
        self._tau: dict[Treatment, np.ndarray] = {}

    def prepare(
        self,
        masks: np.ndarray | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """Scores of single examples, where many λ share a pass over all gradients.

        Not before effects are done with, whose dampings are more, unless they are sums of scores.
        """
        if masks is None:
            wanted = keep if self._rotated.passes else ()
        else:
            wanted = dampings if self._rotated.by_examples(masks) else ()
        wanted = dict.fromkeys(map(float, wanted))
        new = [d for d in wanted if treatment(d, negative) not in self._tau]
        if new:
            found = self._scores(new, negative)
            self._tau.update(
                {treatment(d, negative): one for d, one in zip(new, found, strict=True)}
            )

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(Vᵀ g_q)ᵀ diag(1/d) (Vᵀ g_i) / N."""
        found = self._tau.get(treatment(damping, negative))
        return self._scores([damping], negative)[0] if found is None else found

    def _scores(
        self, dampings: Sequence[float], negative: str | NegativeCurvature
    ) -> list[Float[np.ndarray, "Q N"]]:
        with np.errstate(over="ignore", invalid="ignore"):  # told by whoever reads them
            scaled = (self._scaled_query(damping, negative) for damping in dampings)
            along = self._rotated.along(scaled, len(dampings))
            return [one.T / np.float32(len(one)) for one in along]

    def predicted_effects(
        self,
        masks: np.ndarray,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """The sum over S_j is taken in eigen-coordinates, once for all dampings, or of scores."""
        if self._rotated.by_examples(masks):
            return summed_effects(masks, self.scores(damping, negative))
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
        if self._rotated.by_examples(masks):
            scaled, count = self._scaled_query(damping, negative), np.float32(masks.shape[1])
            each = (self._rotated.through(one, scaled).T / count for one in subsets)
            return np.stack([summed_effects(masks, one) for one in each])
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


def batched(items: Iterable[One], size: int) -> Iterator[list[One]]:
    """Some of them after the other; ``itertools.batched`` of Python 3.12."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
