"""Scores of G and its blocks where their N·C rows are fewer than their parameters.

With R of a block, K = R Rᵀ = U diag(σ) Uᵀ and any function f of RᵀR (``curvature.dual``),

    g_qᵀ f(RᵀR) g_i = f(0) g_q·g_i + (Uᵀ R g_q)ᵀ diag((f(σ) − f(0)) / σ) (Uᵀ R g_i),

so that a new λ costs N·C numbers for every gradient, and no solution is made. R g is made through
all layers in the same sweeps, for G, whose R g is their sum, and for its blocks.

The two terms cancel where λ is small. Where that would be seen in single precision, the rung is
solved, and refined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.block_products import row_images
from decomposition.curvature.dual import Inverse, RowForm
from decomposition.curvature.gram import Gram
from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.damping import DampingError, NegativeCurvature, as_policy
from decomposition.linalg import matmul
from decomposition.memory import OutOfMemoryError, out_of_memory
from decomposition.scores.gradients import GradientSource
from decomposition.scores.lds import summed_effects
from decomposition.scores.scorer import Eigenvalues, Scorer, Subset, Treatment, single, treatment
from decomposition.scores.solving import SolvingScorer

KEPT_NUMBERS = 2**28
"""Numbers in query gradients, and in what is kept of all gradients: 2 GB each."""
HELD_NUMBERS = 2**26
"""Numbers in the gradients that are multiplied at once, beside two copies: 512 MB each."""
CANCELLED = 2e-9
"""Relative rounding, as ``Inverse.cancelled`` tells it, from which a rung is solved: scores are off
by some twenty times that."""
Place = tuple[int, int]
"""First parameter, and one past the last."""
Form = RowForm | Diagonalised


@dataclass
class RowImages:
    """What the forms of blocks see of every gradient; made once for all rungs.

    Columns are queries, then training examples. Gradients are made some at a time, and forgotten.
    """

    gradients: GradientSource
    found: dict[tuple[object, Place], Float[Tensor, "r Q+N"]] = field(default_factory=dict)
    """R g by source and part, and Vᵀ g by eigenbasis and part."""
    plain: dict[Place, Float[Tensor, "Q Q+N"]] = field(default_factory=dict)
    """g_q·g by some parameters."""
    along: dict[Gram, Float[Tensor, "NC Q+N"]] = field(default_factory=dict)
    """Uᵀ R g, by the Gram matrix that U belongs to."""

    def prepare(self, forms: Mapping[Place, Form]) -> bool:
        """Make what these blocks need; whether it can be had.

        Raises:
            OutOfMemoryError: not even the terms of one example fit.
        """
        by_rows = {place: form for place, form in forms.items() if isinstance(form, RowForm)}
        source = next(iter(by_rows.values())).source
        if any(form.source is not source for form in by_rows.values()):
            return False
        parts = [p for form in by_rows.values() for p in _parts(form)]
        parts = [p for p in parts if (source, _place(p)) not in self.found]
        bases = {place: form for place, form in forms.items() if isinstance(form, Diagonalised)}
        bases = {p: form for p, form in bases.items() if (form.basis_key(), p) not in self.found}
        plain = [place for place in by_rows if place not in self.plain]
        if not (parts or bases or plain):
            return True
        size, queries = source.problem.num_parameters, self.gradients.queries
        rows = 2 * source.count * (len(parts) + 1) + sum(form.size for form in bases.values())
        if max(size * queries, rows * (queries + self.gradients.examples)) > KEPT_NUMBERS:
            return False
        asked = torch.cat([*self.gradients.query_parts(queries)], 1)
        made: dict[tuple[object, Place], list[Tensor]] = {}
        products: dict[Place, list[Tensor]] = {place: [] for place in plain}
        for columns in self._columns(asked):
            seen = row_images(source.problem, parts, columns, source.fisher)
            if seen is None:
                return False
            for part, image in zip(parts, seen, strict=True):
                made.setdefault((source, _place(part)), []).append(image)
            for place, form in bases.items():
                inside = form.to_basis(columns[slice(*place)])
                made.setdefault((form.basis_key(), place), []).append(inside)
            for place, some in products.items():
                some.append(matmul(asked[slice(*place)].T, columns[slice(*place)]))
        self.found |= {key: torch.cat(some, 1) for key, some in made.items()}
        self.plain |= {place: torch.cat(some, 1) for place, some in products.items()}
        return True

    def _columns(self, asked: Float[Tensor, "P Q"]) -> Iterator[Float[Tensor, "P n"]]:
        """All gradients, as many at once as may be held."""
        most = max(1, HELD_NUMBERS // len(asked))
        yield from asked.split(most, 1)
        for part in self.gradients.train_parts():
            yield from part.split(most, 1)

    def of(self, form: RowForm) -> Float[Tensor, "NC Q+N"]:
        """Uᵀ R g, made once for all inverses of a rung."""
        if form.gram not in self.along:
            first, *others = (self.found[form.source, _place(part)] for part in _parts(form))
            self.along[form.gram] = matmul(form.gram.vectors.T, sum(others, first))
        return self.along[form.gram]

    def split(self, g: Float[Tensor, "m Q+N"]) -> tuple[Float[Tensor, "m Q"], Tensor]:
        """Those of queries, and of training examples."""
        return g[:, : self.gradients.queries], g[:, self.gradients.queries :]


@dataclass(frozen=True)
class Piece:
    """A bilinear form of queries and training gradients by one block of a rung."""

    part: slice
    query: Float[Tensor, "r Q"]
    train: Float[Tensor, "r N"]
    plain: Float[Tensor, "Q N"] | None
    """g_q·g_i by these parameters; None where the coordinates are complete."""
    inverse: Callable[[float, NegativeCurvature], Inverse]
    """What g_q·g_i and the coordinates are multiplied with."""

    def scores(self, f: Inverse) -> Float[Tensor, "Q N"]:
        """g_qᵀ f(C) g_i."""
        found = matmul((self.query * f.between[:, None]).T.contiguous(), self.train)
        return found if self.plain is None else found.add_(self.plain, alpha=f.outside)


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
        self.told, self._own, self._pieces = eigenvalues, curvature.negative, tuple(pieces)
        self._examples = source.examples
        self._solving = SolvingScorer(curvature, source, eigenvalues)
        self.unsolved: dict[Treatment, str] = self._solving.unsolved

    def prepare(
        self,
        masks: np.ndarray | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """Solve together where solving is more precise."""
        solved = [d for d in dampings if _cancels(self._inverses(d, negative))]
        if solved:
            self._solving.prepare(masks, solved, keep, negative, progress)

    def _inverses(self, damping: float, negative: str | NegativeCurvature) -> list[Inverse] | None:
        """Of every piece; None where one has none, for a reason that is kept."""
        policy = as_policy(self._own or negative)
        try:
            return [piece.inverse(damping, policy) for piece in self._pieces]
        except DampingError as error:
            self.unsolved[treatment(damping, negative)] = str(error)
            return None

    def _each(self, inverses: list[Inverse]) -> Float[np.ndarray, "L Q N"]:
        """Through every piece."""
        pairs = zip(self._pieces, inverses, strict=True)
        found = torch.stack([piece.scores(inverse) for piece, inverse in pairs])
        return found.div_(self._examples).cpu().numpy()

    def _summed(self, inverses: list[Inverse] | None) -> Float[np.ndarray, "Q N"]:
        if inverses is None:
            return np.full((self._pieces[0].query.shape[1], self._examples), np.nan, np.float32)
        return single(torch.from_numpy(self._each(inverses).sum(0)))

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """See the module."""
        inverses = self._inverses(damping, negative)
        if _cancels(inverses):
            return self._solving.scores(damping, negative)
        return self._summed(inverses)

    def predicted_effects(
        self, masks: np.ndarray, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> np.ndarray:
        """By scores of single examples, or from what was solved together."""
        inverses = self._inverses(damping, negative)
        if _cancels(inverses):
            return self._solving.predicted_effects(masks, damping, negative)
        return summed_effects(masks, self._summed(inverses))

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """Through its blocks; through others, of the solutions themselves."""
        own = list(subsets) == [piece.part for piece in self._pieces]
        inverses = self._inverses(damping, negative) if own else None
        if inverses is None or _cancels(inverses):
            return self._solving.partial_effects(masks, damping, subsets, negative)
        each = self._each(inverses)
        return np.stack([summed_effects(masks, one.astype(np.float32)) for one in each])


def _cancels(inverses: list[Inverse] | None) -> bool:
    """Whether a piece loses digits that solving does not."""
    return inverses is not None and any(one.cancelled > CANCELLED for one in inverses)


def row_scorer(
    curvature: Curvature,
    images: RowImages,
    source: GradientSource,
    eigenvalues: Eigenvalues | None = None,
) -> RowScorer | None:
    """The scorer of G, or of blocks side by side, by rows; None of any other rung, and where what
    they see of the gradients does not fit."""
    forms = _forms(curvature) if curvature.definite else {}  # policies then agree on every block
    if not any(isinstance(form, RowForm) for form in forms.values()):
        return None
    try:
        if not images.prepare(forms):
            return None
    except (MemoryError, RuntimeError, OutOfMemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    pieces = [_piece(place, form, images) for place, form in forms.items()]
    return RowScorer(curvature, pieces, source, eigenvalues)


def _forms(curvature: Curvature, start: int = 0) -> Mapping[Place, Form]:
    """Place → the form of every block; nothing where one of them has neither."""
    own = curvature.by_rows or curvature.eigenbasis
    if own is not None:
        return {(start, start + curvature.size): own}
    found: dict[Place, Form] = {}
    for block in curvature.diagonal_blocks().values():
        inner = _forms(block, start)
        if not inner:
            return {}
        found |= inner
        start += block.size
    return found


def _piece(place: Place, form: Form, images: RowImages) -> Piece:
    if isinstance(form, Diagonalised):
        spectrum = form.spectrum()
        return Piece(
            slice(*place),
            *images.split(images.found[form.basis_key(), place]),
            None,
            lambda damping, policy: Inverse(0.0, spectrum.inverse(damping, policy), 0.0),
        )
    plain = images.split(images.plain[place])[1]
    return Piece(slice(*place), *images.split(images.of(form)), plain, form.inverse)


def _parts(form: RowForm) -> list[slice]:
    """Layers through which R is the sum of what each sees, or the part that it is of."""
    if form.part is not None:
        return [form.part]
    return [block.slice for block in form.source.problem.blocks]


def _place(part: slice) -> Place:
    return part.start, part.stop
