"""A rung is a symmetric linear operator, whatever its form: the one interface of all of them.

    form            what is held                        eigenvalues, trace, norm
    dense           C                                   exact
    Kronecker       eigenbases of two factors           exact
    block-diagonal  blocks of any form                  as far as the blocks know them
    low rank        k eigenpairs and one scale          exact
    Gram            rows R of C = RᵀR, and R Rᵀ         exact
    matrix-free     a function v → C v                  estimated, with their errors
    user            a solver, perhaps products          from the products

What depends on the form is asked of the operator: ``eigenbasis`` (is there one?), ``matrix_free``
(are its numbers estimates?), ``diagonal_blocks``. Nobody asks for the class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from decomposition.curvature.damped import DampedSpectrum, FactoredDamping
from decomposition.curvature.estimate import Estimate
from decomposition.damping import NegativeCurvature, as_policy, check_damping
from decomposition.device import CPU
from decomposition.errors import DampingError, DecompositionError
from decomposition.linalg import to_numpy
from decomposition.reals import all_finite, check_finite, real_tensor

if TYPE_CHECKING:  # they are curvatures themselves
    from decomposition.curvature.dual import RowForm
    from decomposition.curvature.matrix_free import MatrixFreeCurvature

Vectors = Tensor | np.ndarray
"""(P,) or (P, k)."""
PROBES = 16
"""Random vectors of an estimated trace or norm."""


@dataclass(frozen=True)
class Solutions:
    """(C + λI)⁻¹ v for several λ, and what was reached."""

    x: Float[Tensor, "D P k"]
    """NaN where there is none."""
    error: Float[Tensor, "D k"]
    """Relative error as far as it is known: 0 of a direct solve, infinite without a solution."""
    failures: tuple[str, ...] = ()
    """Why there is none."""


@dataclass(frozen=True)
class Solve:
    """What one call of an iterative solver cost."""

    damping: float
    """λ, the smallest one of several that share a Krylov space."""
    columns: int
    """Right-hand sides, counted at every λ."""
    products: int
    """Columns multiplied with C."""
    residual: float
    """Largest ‖v − (C + λI) x‖ / ‖v‖, or change of the solutions found in Krylov spaces."""


class NotAvailableError(DecompositionError):
    """This curvature is not known well enough to answer: a solver alone has no spectrum."""


class Curvature(ABC):
    """A symmetric P × P matrix C, in parameter order, float64.

    A subclass need not be able to form the matrix: it implements what it can, and what it
    cannot do raises DecompositionError saying so.
    """

    size: int
    """P."""
    dtype: torch.dtype = torch.float64
    """Of the matrix, and of every product and solution, whatever the vector's."""
    device: torch.device = CPU
    """Where the matrix lies, and the vectors that ``to_basis`` and ``from_basis`` are given."""
    notes: tuple[str, ...] = ()
    """What a reader of a result must know about this rung (degenerate basis, stand-ins)."""
    matrix_free: bool = False
    """Whether it is known by its products: its eigenvalues are not, trace and norm are estimates,
    and solves iterate."""
    definite: bool = False
    """Whether it is known by construction that no eigenvalue is negative."""
    coupled: bool = True
    """Whether it may couple layers; False: it is the direct sum of its ``diagonal_blocks``."""
    solver_alone: bool = False
    """Whether its inverse is what a solver makes of λ, whatever else is asked for."""
    negative: NegativeCurvature | None = None
    """A policy of its own for negative eigenvalues, which overrules every caller's."""

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return self.size, self.size

    @property
    def eigenbasis(self) -> Diagonalised | None:
        """The same curvature if it is C = V diag(μ) Vᵀ with a basis that can be applied."""
        return None

    @property
    def by_spaces(self) -> MatrixFreeCurvature | None:
        """What solves it if that happens in Krylov spaces, where every λ costs little."""
        return None

    @property
    def by_rows(self) -> RowForm | None:
        """What it is made of if it is RᵀR of fewer rows than parameters."""
        return None

    @property
    def record(self) -> Sequence[Solve]:
        """Every iterative solve so far."""
        return ()

    def most_products(self, vectors: int) -> int:
        """Most products that the solutions of so many vectors take, at any number of dampings."""
        return 0

    @contextmanager
    def watched(self, told: Callable[[int], object]) -> Iterator[None]:
        """Tell the columns of every product of an iterative solve in here, for a progress bar."""
        yield

    def matvec(self, v: Vectors) -> Tensor:
        """C v for v (P,) or (P, k), of the same shape and on the same device.

        ``v`` may be any dense array of finite real numbers, here and in ``solve``.

        Raises:
            DecompositionError: it is not, or has another length.
        """
        return self._columns(v, self._matvec)

    def __matmul__(self, v: Vectors) -> Tensor:
        """C @ v, the same as ``matvec``."""
        return self.matvec(v)

    def to_scipy(self) -> SymmetricOperator:
        """C as a ``scipy.sparse.linalg.LinearOperator`` on NumPy vectors, for SciPy's solvers."""
        return SymmetricOperator(self)

    def solve(
        self, v: Vectors, damping: float, negative: str | NegativeCurvature = "signed"
    ) -> Tensor:
        """(C + λI)⁻¹ v for v (P,) or (P, k).

        Another policy for eigenvalues below 0 is asked for by name: ``negative="absolute"``
        inverts |C| + λI, as scores do (see decomposition.damping). A rung whose damping adds
        something else than λI says so in its ``notes``.

        Raises:
            DampingError: λ < 0, or the damped matrix is singular to working precision.
            DecompositionError: ``v`` is no array of P finite real numbers a column.
        """
        value, policy = check_damping(damping), as_policy(negative)
        return self._columns(v, lambda columns: self._solve(columns, value, policy))

    def solutions(
        self,
        v: Float[Tensor, "P k"],
        dampings: Sequence[float],
        negative: str | NegativeCurvature = "signed",
    ) -> Solutions:
        """``solve`` at several λ; where C is singular at one of them, there is no solution."""
        values, policy = [check_damping(damping) for damping in dampings], as_policy(negative)
        columns, where = self._checked(v)
        if columns.ndim != 2:
            raise DecompositionError(
                f"solutions at several dampings are of columns ({self.size}, k), got shape "
                f"{tuple(columns.shape)}"
            )
        found = self._solutions(columns, values, policy)
        return Solutions(found.x.to(where), found.error.to(where), found.failures)

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        x = v.new_full((len(dampings), *v.shape), torch.nan)
        change = v.new_full((len(dampings), v.shape[1]), torch.inf)
        failures, solve = [], self._solver(v, negative)
        for i, damping in enumerate(dampings):
            try:
                x[i] = solve(damping)
                change[i] = 0.0
            except DampingError as error:
                failures.append(f"at damping {damping:.3g}: {error}")
        return Solutions(x, change, tuple(failures))

    def _solver(
        self, v: Float[Tensor, "P k"], negative: NegativeCurvature
    ) -> Callable[[float], Float[Tensor, "P k"]]:
        """λ ↦ (C + λI)⁻¹ v, with what all λ share done once."""
        return lambda damping: self.solve(v, damping, negative)

    @abstractmethod
    def _matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]: ...

    @abstractmethod
    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: NegativeCurvature
    ) -> Float[Tensor, "P k"]: ...

    @abstractmethod
    def eigenvalues(self) -> Float[Tensor, " P"]:
        """All eigenvalues, ascending.

        Raises:
            NotAvailableError: they are not known.
        """

    def leading_vectors(self, k: int) -> Float[Tensor, "P k"]:
        """The k orthonormal eigenvectors of largest |μ|, the largest first.

        Raises:
            NotAvailableError: they are not known.
        """
        raise NotAvailableError("eigenvectors are known of curvatures that have an eigenbasis")

    def dense(self) -> Float[Tensor, "P P"]:
        """The matrix itself."""
        return self._matvec(torch.eye(self.size, dtype=torch.float64, device=self.device))

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """tr C; a matrix-free one is estimated from so many seeded random vectors."""
        return Estimate(float(self.eigenvalues().sum()))

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """‖C‖_F; a matrix-free one is estimated from so many seeded random vectors."""
        return Estimate(float(torch.linalg.vector_norm(self.eigenvalues())))

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """The diagonal block of every layer, by name; empty if there is no such structure."""
        return {}

    def by_factors(self) -> Curvature:
        """The same with both factors of every layer damped, in place of their product.

        (A + π√λ)⁻¹ ⊗ (S + √λ/π)⁻¹, see decomposition.curvature.damped; λI where a layer has none.

        Raises:
            NotAvailableError: no layer has factors.
        """
        raise NotAvailableError("it is no Kronecker product, so that no factors can be damped")

    def by_products(self) -> Curvature:
        """The same for a computer on which its P × P matrix does not fit.

        Only a form that would write the matrix out to answer has another one for this.
        """
        return self

    def _columns(self, given: Vectors, apply: Callable[[Tensor], Tensor]) -> Tensor:
        v, where = self._checked(given)
        if not v.numel():
            return v.to(where)
        with np.errstate(over="ignore", invalid="ignore"):  # NumPy would warn where we refuse
            found = apply(v[:, None])[:, 0] if v.ndim == 1 else apply(v)
        if not all_finite(found):
            raise DecompositionError(
                "the result is too large for float64: scale the vector, or C and the damping"
            )
        return found.to(where)

    def _checked(self, v: object) -> tuple[Tensor, torch.device]:
        """A user's vector in float64, on the curvature's device; and the device that it is from."""
        given = real_tensor(v, "the vector")
        if given.ndim not in (1, 2) or len(given) != self.size:
            raise DecompositionError(
                f"a vector for this curvature has shape ({self.size},) or ({self.size}, k), "
                f"got {tuple(given.shape)}"
            )
        check_finite(given, "the vector holds NaN or infinity")
        return given.to(self.device), given.device


class Diagonalised(Curvature):
    """A curvature C = V diag(μ) Vᵀ with an orthonormal basis V that may be implicit.

    Coordinates in the basis are cheap to rescale: a new damping costs P multiplications.
    """

    @property
    def eigenbasis(self) -> Diagonalised | None:
        """Itself."""
        return self

    @abstractmethod
    def basis_values(self) -> Float[Tensor, " P"]:
        """μ in the order of the basis."""

    @abstractmethod
    def to_basis(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """Vᵀ v."""

    @abstractmethod
    def from_basis(self, c: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """V c."""

    def basis_key(self) -> object:
        """Equal for curvatures that share one basis."""
        return id(self)

    def factored_damping(self) -> FactoredDamping | None:
        """What λ adds besides itself, in the order of the basis; None: λI alone is added."""
        return None

    def spectrum(self) -> DampedSpectrum:
        """μ and how λ enters the inverse: what every user of a damped inverse asks."""
        return DampedSpectrum(self.basis_values(), self.factored_damping(), self.negative)

    def basis_columns(self, places: slice | Tensor) -> Float[Tensor, "P k"]:
        """Eigenvectors at these ``places`` of V, dense."""
        chosen = torch.arange(self.size, device=self.device)[places]
        unit = torch.zeros(self.size, len(chosen), dtype=torch.float64, device=self.device)
        unit[chosen, torch.arange(len(chosen), device=self.device)] = 1.0
        return self.from_basis(unit)

    def eigenvalues(self) -> Tensor:
        """μ, ascending."""
        return self.basis_values().sort().values

    def leading_vectors(self, k: int) -> Tensor:
        """Of the basis."""
        return self.basis_columns(
            self.basis_values().abs().argsort(descending=True, stable=True)[:k]
        )

    def _matvec(self, v: Tensor) -> Tensor:
        return self.from_basis(self.basis_values()[:, None] * self.to_basis(v))

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        inverse = self.spectrum().inverse(damping, negative)
        return self.from_basis(inverse[:, None] * self.to_basis(v))

    def _solver(self, v: Tensor, negative: NegativeCurvature) -> Callable[[float], Tensor]:
        if self.eigenbasis is None:  # a wrapper of a curvature without one
            return super()._solver(v, negative)
        coordinates, spectrum = self.to_basis(v), self.spectrum()

        def solve(damping: float) -> Tensor:
            inverse = spectrum.inverse(damping, negative)[:, None]
            return self._columns(v, lambda _: self.from_basis(inverse * coordinates))

        return solve


class SymmetricOperator(LinearOperator):
    """C = Cᵀ among SciPy's linear operators: NumPy vectors (P,) and matrices (P, k), float64."""

    def __init__(self, curvature: Curvature) -> None:
        """Nothing is computed yet."""
        super().__init__(np.dtype(np.float64), curvature.shape)
        self._curvature = curvature

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return to_numpy(self._curvature.matvec(x))

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        return self._matvec(X)

    def _adjoint(self) -> SymmetricOperator:
        return self

    def _transpose(self) -> SymmetricOperator:
        return self
