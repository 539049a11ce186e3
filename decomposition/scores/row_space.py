"""Scores of G and its blocks where their N·C rows are fewer than their parameters.

With R of a block, K = R Rᵀ = U diag(σ) Uᵀ and any function f of RᵀR (``curvature.dual``),

    g_qᵀ f(RᵀR) g_i = f(0) g_q·g_i + (Uᵀ R g_q)ᵀ diag((f(σ) − f(0)) / σ) (Uᵀ R g_i),

so that a new λ costs N·C numbers for every gradient, and no solution is made. R g is made through
all layers in one sweep, for G, whose R g is their sum, and for its blocks.

The two terms cancel where λ is small. Where that would be seen in single precision, the rung is
solved, and refined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.block_products import row_images
from decomposition.curvature.dual import RowForm, RowSource
from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.damping import DampingError, NegativeCurvature, as_policy
from decomposition.linalg import matmul
from decomposition.scores.gradients import GradientSource
from decomposition.scores.lds import summed_effects
from decomposition.scores.scorer import Eigenvalues, Scorer, Subset, Treatment, single, treatment
from decomposition.scores.solving import SolvingScorer

GRADIENT_NUMBERS = 2**28
"""Numbers in all gradients up to which they are held at once, and in their images: 2 GB each."""
CANCELLED = 2e-9
"""Relative rounding, as ``Inverse.cancelled`` tells it, from which a rung is solved: scores are off
by some twenty times that."""
Place = tuple[int, int]
"""First parameter, and one past the last."""


@dataclass
class RowImages:
    """R g of every gradient, through parts of the parameters; made once for all rungs.

    The gradients themselves are forgotten in between, and made again: they are larger.
    """

    gradients: GradientSource
    columns: Float[Tensor, "P Q+N"] | None = None
    """∇m_q of the queries, then g_i of the training examples."""
    found: dict[tuple[int, Place], Float[Tensor, "NC Q+N"]] = field(default_factory=dict)
    """By source and part."""
    sources: list[RowSource] = field(default_factory=list)
    """Kept: an id is a key only while its object lives."""

    def prepare(self, source: RowSource, parts: Sequence[slice]) -> bool:
        """Make those of some parts, in one sweep; whether they can be had."""
        new = [part for part in parts if (id(source), _place(part)) not in self.found]
        if not new:
            return True
        gradients = self.gradients
        numbers = (gradients.queries + gradients.examples) * max(
            source.problem.num_parameters, 2 * source.count * (len(new) + 1)
        )
        if numbers > GRADIENT_NUMBERS:
            return False
        images = row_images(source.problem, new, self._all(), source.fisher)
        if images is None:
            return False
        self.sources.append(source)
        for part, image in zip(new, images, strict=True):
            self.found[id(source), _place(part)] = image
        return True

    def of(self, source: RowSource, parts: Sequence[slice]) -> Float[Tensor, "NC Q+N"]:
        """R g through these parts together."""
        first, *others = (self.found[id(source), _place(part)] for part in parts)
        return sum(others, first)

    def split(self, g: Float[Tensor, "m Q+N"]) -> tuple[Float[Tensor, "m Q"], Tensor]:
        """Those of queries, and of training examples."""
        return g[:, : self.gradients.queries], g[:, self.gradients.queries :]

    def _all(self) -> Float[Tensor, "P Q+N"]:
        if self.columns is None:
            parts = [*self.gradients.query_parts(self.gradients.queries)]
            self.columns = torch.cat([*parts, *self.gradients.train_parts()], 1)
        return self.columns

    def through(self, part: slice) -> tuple[Float[Tensor, "m Q"], Float[Tensor, "m N"]]:
        """Gradients by these parameters."""
        return self.split(self._all()[part])

    def forget_gradients(self) -> None:
        """Until they are asked for again."""
        self.columns = None


@dataclass(frozen=True)
class Piece:
    """A bilinear form of queries and training gradients by one block of a rung."""

    part: slice
    query: Float[Tensor, "r Q"]
    train: Float[Tensor, "r N"]
    plain: Float[Tensor, "Q N"] | None
    """g_q·g_i by these parameters; None where the coordinates are complete."""
    inverse: Callable[[float, NegativeCurvature], tuple[float, Float[Tensor, " r"], float]]
    """f(0), what coordinates are multiplied with, and the relative rounding."""

    def scores(self, damping: float, policy: NegativeCurvature) -> Float[Tensor, "Q N"]:
        """g_qᵀ f(C) g_i.

        Raises:
            DampingError: there is no such inverse.
        """
        outside, between, _ = self.inverse(damping, policy)
        found = matmul((self.query * between[:, None]).T.contiguous(), self.train)
        return found if self.plain is None else found.add_(self.plain, alpha=outside)


class RowScorer(Scorer):
    """A Gauss–Newton rung by the images of the gradients under its rows."""

    def __init__(
        self,
        curvature: Curvature,
        pieces: Sequence[Piece],
        source: GradientSource,
        eigenvalues: Eigenvalues | None,
    ) -> None:
        """Nothing is scored yet.

        Args:
            curvature: C, which is solved where that is more precise.
            pieces: of its blocks, or the one of all of it.
            source: gradients.
            eigenvalues: what is known of its spectrum.
        """
        self.unsolved: dict[Treatment, str] = {}
        self.told, self._own, self._pieces = eigenvalues, curvature.negative, tuple(pieces)
        self._examples = source.examples
        self._solving = SolvingScorer(curvature, source, eigenvalues)

    def prepare(
        self,
        masks: np.ndarray | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """Solve together where solving is more precise."""
        solved = [damping for damping in dampings if self._solves(damping, negative)]
        if solved:
            self._solving.prepare(masks, solved, keep, negative, progress)
            self.unsolved |= self._solving.unsolved

    def _solves(self, damping: float, negative: str | NegativeCurvature) -> bool:
        policy = as_policy(self._own or negative)
        try:
            return any(one.inverse(damping, policy)[2] > CANCELLED for one in self._pieces)
        except DampingError:
            return False

    def _each(
        self, damping: float, negative: str | NegativeCurvature
    ) -> Float[np.ndarray, "L Q N"] | None:
        """Through every piece; None where there are no scores."""
        policy = as_policy(self._own or negative)
        try:
            found = torch.stack([piece.scores(damping, policy) for piece in self._pieces])
        except DampingError as error:
            self.unsolved[treatment(damping, negative)] = str(error)
            return None
        return found.div_(self._examples).cpu().numpy()

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """See the module."""
        if self._solves(damping, negative):
            found = self._solving.scores(damping, negative)
            self.unsolved |= self._solving.unsolved
            return found
        each = self._each(damping, negative)
        if each is None:
            return np.full((self._pieces[0].query.shape[1], self._examples), np.nan, np.float32)
        return single(torch.from_numpy(each.sum(0)))

    def predicted_effects(
        self, masks: np.ndarray, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> np.ndarray:
        """By scores of single examples, or from what was solved together."""
        if self._solves(damping, negative):
            return self._solving.predicted_effects(masks, damping, negative)
        return summed_effects(masks, self.scores(damping, negative))

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """Through its blocks; through others, of the solutions themselves."""
        if list(subsets) == [piece.part for piece in self._pieces] and not self._solves(
            damping, negative
        ):
            each = self._each(damping, negative)
            if each is not None:
                return np.stack([summed_effects(masks, one.astype(np.float32)) for one in each])
        return self._solving.partial_effects(masks, damping, subsets, negative)


def row_scorer(
    curvature: Curvature,
    images: RowImages,
    source: GradientSource,
    eigenvalues: Eigenvalues | None = None,
) -> RowScorer | None:
    """The scorer of G, or of blocks side by side, by rows; None of any other rung, and where the
    images of the gradients do not fit."""
    forms = _forms(curvature)
    by_rows = [(part, form) for part, form in forms.items() if isinstance(form, RowForm)]
    if not by_rows:
        return None
    layers = [block.slice for block in by_rows[0][1].source.problem.blocks]
    for form in {id(form.source): form for _, form in by_rows}.values():
        wanted = [
            part
            for place, other in by_rows
            if other.source is form.source
            for part in (layers if other.part is None else [slice(*place)])
        ]
        if not images.prepare(form.source, wanted):
            return None
    pieces = [_piece(slice(*place), form, images, layers) for place, form in forms.items()]
    return RowScorer(curvature, pieces, source, eigenvalues)


def _forms(curvature: Curvature, start: int = 0) -> Mapping[Place, RowForm | Diagonalised]:
    """Place → the form of every block; nothing where one of them has neither."""
    own = curvature.by_rows or curvature.eigenbasis
    if own is not None:
        return {(start, start + curvature.size): own}
    found: dict[Place, RowForm | Diagonalised] = {}
    for block in curvature.diagonal_blocks().values():
        inner = _forms(block, start)
        if not inner:
            return {}
        found |= inner
        start += block.size
    return found


def _piece(
    part: slice, form: RowForm | Diagonalised, images: RowImages, layers: Sequence[slice]
) -> Piece:
    g_query, g_train = images.through(part)
    if isinstance(form, Diagonalised):
        spectrum = form.spectrum()
        return Piece(
            part,
            form.to_basis(g_query),
            form.to_basis(g_train),
            None,
            lambda damping, policy: (0.0, spectrum.inverse(damping, policy), 0.0),
        )

    def inverse(damping: float, policy: NegativeCurvature) -> tuple[float, Tensor, float]:
        f = form.inverse(damping, policy)
        return f.outside, f.between, f.cancelled

    rows = images.of(form.source, layers if form.part is None else [part])
    query, train = images.split(matmul(form.gram.vectors.T, rows))
    return Piece(part, query, train, matmul(g_query.T, g_train), inverse)


def _place(part: slice) -> Place:
    return part.start, part.stop
