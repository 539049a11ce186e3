"""A curvature known by its products: damped systems are solved by iteration.

One λ with negative eigenvalues as they are: MINRES (conjugate gradients if C is definite), with a
preconditioner. Any other policy for them, and many λ at once: functions of C in one Krylov space of
all vectors (``shared_space``), which all λ share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.cg import cg
from decomposition.curvature.estimate import Estimate, Symmetric, squared_norm, xtrace
from decomposition.curvature.krylov import Function
from decomposition.curvature.minres import minres
from decomposition.curvature.operator import (
    PROBES,
    Curvature,
    NotAvailableError,
    Solutions,
    Solve,
)
from decomposition.curvature.shared_space import (
    Projection,
    SharedSpace,
    dimensions,
    shared_space,
)
from decomposition.curvature.solution import SolverError, Stopping
from decomposition.damping import NegativeCurvature
from decomposition.device import chunk_bytes
from decomposition.memory import shrinking

TOLERANCE = 1e-6
"""Relative residual of a solve: scores are then exact to about as many digits."""
MOST_STEPS = 500
CHANGE = 1e-2
"""Relative change of a function of C over the last fifth of its Krylov space: what is left moves
the ranks of scores by about a tenth of it."""
KRYLOV_STEPS = 100
"""Dimensions of a Krylov space, and products, for each vector in it."""
SPACE_BYTES = 2**30
"""Of a Krylov space."""
DIMENSIONS_EACH = 5
"""Of every vector in a space, at the least: fewer vectors then share one."""
SOLVE_NUMBERS = 2**24
"""Numbers in the right-hand sides that are solved at once: 128 MB."""
WORK_VECTORS = 14
"""Of MINRES, for every right-hand side that is solved at once."""
Result = TypeVar("Result")


def estimated_norm(operator: Symmetric, probes: int, seed: int) -> Estimate:
    """‖C‖_F from its products, with the error that goes with its square's."""
    square = squared_norm(operator, probes, seed)
    norm = max(square, 0.0) ** 0.5
    return Estimate(norm, square.error / (2.0 * norm) if norm else square.error**0.5)


class Products(Symmetric, Protocol):
    """What is needed of an operator."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a result must know about them."""
        ...


class MatrixFreeCurvature(Curvature):
    """C by its products; trace and norm are estimates, with their errors.

    Args:
        product: C v.
        preconditioner: a curvature whose damped inverse is close to that of C, at the same λ,
            and positive definite; default none.
        definite: whether C has no negative eigenvalues, so that all policies agree.
        tolerance: relative residual of every column of a solve at one λ.
        most: its steps.
        change: relative change at which a solution in a Krylov space is taken.
        krylov_steps: most dimensions of a Krylov space for each vector in it.
        space_bytes: most memory of such a space.
        space_dtype: of its basis; float32 where products have its rounding.
        keep: whether the last space is kept, in single precision, for the same vectors: they are
            solved again at other dampings without a product.
        blocks: parameters that it does not couple with others, if there are such.
        trace: tr C where it is known; default it is estimated.
        name: for notes.
    """

    matrix_free = True

    def __init__(
        self,
        product: Products,
        preconditioner: Curvature | None = None,
        *,
        definite: bool = False,
        tolerance: float = TOLERANCE,
        most: int = MOST_STEPS,
        change: float = CHANGE,
        krylov_steps: int = KRYLOV_STEPS,
        space_bytes: int = SPACE_BYTES,
        space_dtype: torch.dtype = torch.float64,
        keep: bool = False,
        blocks: Sequence[slice] = (),
        trace: float | None = None,
        name: str = "curvature",
    ) -> None:
        """Nothing is computed yet."""
        self.size, self.device = product.size, product.device
        self.definite, self.blocks = definite, tuple(blocks)
        self._record: list[Solve] = []
        self._told: Callable[[int], object] | None = None
        self._product, self._preconditioner = product, preconditioner
        self._tolerance, self._most, self._trace = tolerance, most, trace
        self._change, self._krylov_steps = change, krylov_steps
        self._largest = max(1, space_bytes // (space_dtype.itemsize * self.size))
        self._space_dtype, self._keep = space_dtype, keep
        self._kept: SharedSpace | None = None
        solver = "conjugate gradients" if definite else "MINRES where negative ones count as signed"
        self.notes = (
            f"{name}: known by its products, not by its eigenvalues; damped solves to a relative "
            f"residual of {tolerance:g} by {solver}, for other policies and many dampings at once "
            f"in one Krylov space of all vectors, of at most {krylov_steps} dimensions for each "
            f"and {self._largest:,} in all, to a relative change of {change:g}",
            *product.notes,
        )

    @property
    def by_spaces(self) -> MatrixFreeCurvature:
        """Itself."""
        return self

    @property
    def record(self) -> list[Solve]:
        """Every solve so far."""
        return self._record

    @contextmanager
    def watched(self, told: Callable[[int], object]) -> Iterator[None]:
        """Tell the products of the solves in here that are made in Krylov spaces."""
        self._told = told
        try:
            yield
        finally:
            self._told = None

    def eigenvalues(self) -> Tensor:
        """Not known.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            "the eigenvalues of a matrix-free curvature are not known: estimate its spectrum with "
            "decomposition.spectrum.quadrature.estimated_spectrum, or raise --memory"
        )

    def dense(self) -> Tensor:
        """Not formed.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            f"a matrix-free curvature is never formed: it has {self.size:,}² entries; its "
            "distances to others are estimated by decomposition.curvature.estimate"
        )

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """tr C as it was given, or by XTrace from twice as many products as probes."""
        return xtrace(self, probes, seed) if self._trace is None else Estimate(self._trace)

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """‖C‖_F from twice as many products as probes."""
        return estimated_norm(self, probes, seed)

    def _matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        return self._product.matvec(v)

    def most_products(self, vectors: int) -> int:
        """Dimensions of the spaces of so many vectors."""
        each = self._together(vectors)
        rest = vectors % each
        return vectors // each * self._dimensions(each) + (self._dimensions(rest) if rest else 0)

    def in_spaces(
        self,
        v: Float[Tensor, "P k"],
        dampings: Sequence[float],
        negative: NegativeCurvature,
        use: Callable[[SharedSpace, Float[Tensor, "D k"]], Result],
    ) -> list[Result]:
        """What ``use`` makes of the Krylov spaces in which the columns are solved.

        One of all of them, unless it would be too small for so many: then one of some columns after
        the other.

        Args:
            v: columns.
            dampings: at which a space is to be large enough, if it can.
            negative: policy for negative eigenvalues.
            use: is given one space at a time, which then is gone, and the relative change of the
                solutions at every damping.
        """

        def enough(found: Projection) -> bool:
            change = found.change(inverse(min(dampings), negative))
            return bool((change <= self._change).all())

        def some(columns: slice) -> Result:
            part, self._kept = v[:, columns], None  # not beside the new one
            most, dtype = self._dimensions(part.shape[1]), self._space_dtype
            space = shared_space(self._watched, part, most, enough, dtype)
            if self._keep:
                self._kept = space.in_single_precision()
            found = space.projection
            change = _changes(found, dampings, negative)
            self._note(min(dampings), change, found.dimensions)
            return use(space, change)

        if not v.shape[1]:
            return [some(slice(0, 0))]
        return list(shrinking(some, v.shape[1], self._together(v.shape[1])))

    def unsolved(self, damping: float, change: Float[Tensor, " k"], dimensions: int) -> str | None:
        """Why there are no solutions whose change is this; None where there are."""
        if bool((change <= self._change).all()):
            return None
        return (
            f"at damping {damping:.3g}: solutions still change by {float(change.max()):.2g} in a "
            f"Krylov space of {dimensions:,} dimensions"
        )

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        """All λ from one Krylov space; where it is too small, no solution."""

        def solved(space: SharedSpace, change: Tensor) -> tuple[Tensor, Tensor, dict[float, str]]:
            x = torch.stack([space.apply(inverse(damping, negative)) for damping in dampings])
            size = space.projection.dimensions
            said = {d: self.unsolved(d, one, size) for d, one in zip(dampings, change, strict=True)}
            failures = {damping: text for damping, text in said.items() if text is not None}
            return torch.where((change <= self._change)[:, None], x, torch.nan), change, failures

        kept = None if self._kept is None else self._kept.of(v)
        parts = []
        if kept is not None:
            parts = [solved(kept, _changes(kept.projection, dampings, negative))]
        if not parts or parts[0][2]:
            parts = self.in_spaces(v, dampings, negative, solved)
        failures: dict[float, str] = {}
        for *_, said in parts:
            failures |= said
        x, change = torch.cat([x for x, *_ in parts], 2), torch.cat([c for _, c, _ in parts], 1)
        return Solutions(x, change, tuple(failures[d] for d in sorted(failures)))

    def _note(self, damping: float, change: Float[Tensor, "D k"], products: int) -> None:
        taken = change <= self._change
        residual = float(torch.where(taken, change, 0.0).max()) if change.numel() else 0.0
        self._record.append(Solve(damping, taken.numel(), products, residual))

    def _together(self, vectors: int) -> int:
        """Columns that share a space."""
        return max(1, min(vectors, self._largest // DIMENSIONS_EACH))

    def _dimensions(self, vectors: int) -> int:
        return dimensions(self.size, vectors, self._krylov_steps, self._largest)

    def _watched(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        image = self._product.matvec(v)
        if self._told is not None:
            self._told(v.shape[1])
        return image

    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: NegativeCurvature
    ) -> Float[Tensor, "P k"]:
        if negative.leaves_out or not (self.definite or negative.name == "signed"):
            found = self._solutions(v, [damping], negative)
            if found.failures:
                raise SolverError(
                    f"{found.failures[0]}, not by {self._change:g}: use a larger damping, or a "
                    "larger space (krylov_steps, space_bytes)"
                )
            return found.x[0]
        numbers = WORK_VECTORS * self.size
        parts = self._by_columns(
            lambda some: self._iterated(some, damping), v, SOLVE_NUMBERS * WORK_VECTORS, numbers
        )
        return torch.cat(parts, 1)

    def _by_columns(
        self, work: Callable[[Tensor], Result], v: Float[Tensor, "P k"], on_cpu: int, one: int
    ) -> list[Result]:
        """Of a few columns at a time, each of which takes ``one`` numbers."""
        chunk = chunk_bytes(self.device, 8 * on_cpu) // (8 * one)
        if not v.shape[1]:
            return [work(v)]
        return list(shrinking(lambda some: work(v[:, some]), v.shape[1], chunk))

    def _iterated(self, v: Float[Tensor, "P k"], damping: float) -> Float[Tensor, "P k"]:
        solver = cg if self.definite else minres
        other = self._preconditioner
        found = solver(
            lambda u: self._product.matvec(u) + damping * u,
            v,
            None if other is None else lambda u: other.solve(u, damping, "absolute"),
            Stopping(self._tolerance, self._most),
        )
        residual = float(found.residuals.max()) if v.shape[1] else 0.0
        self._record.append(Solve(damping, v.shape[1], found.products, residual))
        return found.x


def inverse(damping: float, negative: NegativeCurvature) -> Function:
    """1/d(μ, λ)."""
    return lambda theta: negative.denominators(theta, damping).reciprocal()


def _changes(
    found: Projection, dampings: Sequence[float], negative: NegativeCurvature
) -> Float[Tensor, "D k"]:
    return torch.stack([found.change(inverse(damping, negative)) for damping in dampings])
