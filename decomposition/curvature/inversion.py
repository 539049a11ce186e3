"""How λ enters the inverse of a rung: the same curvature C under another inverse.

A rung is a matrix C; how λ enters its inverse is a treatment, which leaves C, its eigenvalues and
its basis as they are:

    damped              (C + λI)⁻¹
    per_layer           (C + λ ⊕_l (m_l/m) I)⁻¹ with the mean eigenvalues m_l = tr C_ll / P_l of
                        each layer's block, and m = tr C / P of all: λ counts in the same units
    factored            (A + π√λ)⁻¹ ⊗ (S + √λ/π)⁻¹ of rungs with Kronecker factors, Martens &
                        Grosse 2015 (arXiv 1503.05671, section 6.3)
    pseudo_inverse      1/|μ| where |μ| > λ, else 0, of a replication of Hong et al. 2025
    truncated:ε         1/(μ + λ) where μ + λ > ε, else 0; ε = 10⁻⁶, of the code published with
                        Hong et al. 2025 (arXiv 2509.23437)

Where layers are coupled, per-layer damping is not diagonal in the eigenbasis of C: the policy makes
V diag(d(μ, 0)) Vᵀ, the damping is added to it, and Cholesky solves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from decomposition.checks import check_fields, number, numbered
from decomposition.curvature.block_diagonal import BlockDiagonal
from decomposition.curvature.damped import FactoredDamping
from decomposition.curvature.dual import RowForm
from decomposition.curvature.estimate import Estimate
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.operator import (
    PROBES,
    Curvature,
    Diagonalised,
    NotAvailableError,
    Solutions,
    Solve,
)
from decomposition.damping import NegativeCurvature, PseudoInverse, Truncate, as_policy
from decomposition.errors import DampingError, DecompositionError
from decomposition.linalg import add_squares, solve_positive


class Reinverted(Diagonalised):
    """The same matrix C in the same form, with its basis and eigenvalues, made once for both.

    Args:
        curvature: C.
    """

    def __init__(self, curvature: Curvature) -> None:
        """Keep the curvature."""
        self.curvature = curvature
        self.negative = curvature.negative
        self.size, self.device = curvature.size, curvature.device
        self.matrix_free, self.definite = curvature.matrix_free, curvature.definite
        self.coupled, self.solver_alone = curvature.coupled, curvature.solver_alone
        self.notes = curvature.notes
        self._blocks: dict[str, Curvature] = {}

    @property
    def eigenbasis(self) -> Diagonalised | None:
        """Itself where the curvature has one."""
        return None if self.curvature.eigenbasis is None else self

    @property
    def record(self) -> Sequence[Solve]:
        """The same as of the curvature itself."""
        return self.curvature.record

    def most_products(self, vectors: int) -> int:
        """The same as of the curvature itself."""
        return self.curvature.most_products(vectors)

    def watched(self, told: Callable[[int], object]) -> AbstractContextManager[None]:
        """The same as of the curvature itself."""
        return self.curvature.watched(told)

    def eigenvalues(self) -> Tensor:
        """μ, ascending."""
        return self.curvature.eigenvalues()

    def basis_values(self) -> Tensor:
        """μ."""
        return self._basis().basis_values()

    def basis_key(self) -> object:
        """That of the curvature: gradients are rotated once for both."""
        return self._basis().basis_key()

    def factored_damping(self) -> FactoredDamping | None:
        """The same as of the curvature itself."""
        return self._basis().factored_damping()

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v."""
        return self._basis().to_basis(v)

    def from_basis(self, c: Tensor) -> Tensor:
        """V c."""
        return self._basis().from_basis(c)

    def basis_columns(self, places: slice | Tensor) -> Tensor:
        """V[:, places]."""
        return self._basis().basis_columns(places)

    def dense(self) -> Tensor:
        """A copy of C."""
        return self.curvature.dense().clone()

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """tr C."""
        return self.curvature.trace(probes, seed)

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """‖C‖_F."""
        return self.curvature.frobenius_norm(probes, seed)

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """The blocks of C, each with the same inverse."""
        for name, block in self.curvature.diagonal_blocks().items():
            self._blocks.setdefault(name, self._like(block))
        return self._blocks

    @abstractmethod
    def _like(self, block: Curvature) -> Curvature:
        """A block of C with this inverse."""

    def _basis(self) -> Diagonalised:
        found = self.curvature.eigenbasis
        if found is None:
            raise NotAvailableError(
                "this curvature has no eigenbasis under any policy: solve with it, or raise "
                "--memory until it is formed"
            )
        return found

    def _matvec(self, v: Tensor) -> Tensor:
        return self.curvature.matvec(v)


class UnderPolicy(Reinverted):
    """Its damped inverse follows ``policy`` throughout.

    Args:
        curvature: C.
        policy: name or instance (see decomposition.damping); what a caller of ``solve`` asks
            for is overruled.

    Raises:
        DampingError: unknown name.
    """

    def __init__(self, curvature: Curvature, policy: str | NegativeCurvature) -> None:
        """Keep the curvature and the policy."""
        super().__init__(curvature)
        self.negative = self._policy = as_policy(policy)
        self.notes = (*curvature.notes, f"negative eigenvalues: policy {self._policy.name}")

    @property
    def by_spaces(self) -> MatrixFreeCurvature | None:
        """That of the curvature, whose spaces serve every policy."""
        return self.curvature.by_spaces

    @property
    def by_rows(self) -> RowForm | None:
        """Those of the curvature, under the policy."""
        own = self.curvature.by_rows
        if own is None:
            return None
        return replace(own, inverse=lambda damping, _: own.inverse(damping, self._policy))

    def _like(self, block: Curvature) -> UnderPolicy:
        return UnderPolicy(block, self._policy)

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        if self.eigenbasis is None:
            return self.curvature.solve(v, damping, self._policy)
        return super()._solve(v, damping, negative)

    def _solutions(
        self, v: Tensor, dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        if self.eigenbasis is None:
            return self.curvature.solutions(v, dampings, self._policy)
        return super()._solutions(v, dampings, negative)


class ScaledDamping(Reinverted):
    """(C + u λ I)⁻¹: λ counts in units of u.

    Args:
        curvature: C; λ may enter its inverse by its factors.
        unit: u > 0.
    """

    def __init__(self, curvature: Curvature, unit: float) -> None:
        """Keep the curvature and the unit."""
        super().__init__(curvature)
        self._unit = unit

    def factored_damping(self) -> FactoredDamping:
        """λ (u − 1) besides λ itself; of √λ κ + λ ν, what they are at u λ."""
        own = super().factored_damping() or FactoredDamping.none(self.size, self.device)
        return FactoredDamping(
            self._unit**0.5 * own.root, self._unit * own.whole + (self._unit - 1.0)
        )

    @property
    def by_rows(self) -> RowForm | None:
        """Those of the curvature, at u λ."""
        own = self.curvature.by_rows
        if own is None:
            return None
        return replace(
            own, inverse=lambda damping, policy: own.inverse(self._unit * damping, policy)
        )

    def _like(self, block: Curvature) -> ScaledDamping:
        return ScaledDamping(block, self._unit)

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        return self.curvature.solve(v, self._unit * damping, negative)

    def _solutions(
        self, v: Tensor, dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        return self.curvature.solutions(v, [self._unit * d for d in dampings], negative)


class CoupledPerLayer(Reinverted):
    """(d(C) + λ D)⁻¹ of a C that couples layers, with d(C) = V diag(d(μ, 0)) Vᵀ: by Cholesky.

    Args:
        curvature: C, with an eigenbasis, and a matrix that fits.
        units: diagonal of D, (P,).
    """

    def __init__(self, curvature: Diagonalised, units: Tensor) -> None:
        """Nothing is computed yet."""
        super().__init__(curvature)
        self._units = units

    @property
    def eigenbasis(self) -> None:
        """None: the inverse is diagonal in no basis that C has."""
        return None

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """None: the inverse of a block is no block of the inverse."""
        return {}

    def _like(self, block: Curvature) -> Curvature:
        return block

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        mu = self.basis_values()
        change = negative.denominators(mu, 0.0) - mu
        rounding = self.size * torch.finfo(mu.dtype).eps * float(mu.abs().max())
        other = torch.nonzero(change.abs() > rounding)
        matrix = self.dense()
        if len(other):  # mostly one end of an ascending spectrum
            panel = slice(int(other.min()), int(other.max()) + 1)
            add_squares(matrix, self.basis_columns(panel), change[panel])
        matrix.diagonal().add_(damping * self._units)
        return solve_positive(matrix, v)


def per_layer(curvature: Curvature, layers: Mapping[str, slice], formed: bool = True) -> Curvature:
    """C with λ m_l / m in place of λ on every layer l: in units of its mean eigenvalue m_l.

    Args:
        curvature: C.
        layers: name → its parameters; where C does not couple layers, its own blocks are taken.
        formed: whether P × P matrices fit.

    Raises:
        NotAvailableError: it has an inverse of its own, or couples layers and is not formed.
        DampingError: a layer's mean eigenvalue is not positive.
    """
    _check_open(curvature)
    if not curvature.coupled:
        blocks = curvature.diagonal_blocks()
        units = _units({name: (float(b.trace()), b.size) for name, b in blocks.items()})
        found = BlockDiagonal({n: ScaledDamping(b, units[n]) for n, b in blocks.items()})
        found.notes = curvature.notes
        return found
    basis = curvature.eigenbasis
    if basis is None or not formed:
        raise NotAvailableError(
            "a damping of each layer asks for its matrix, or its layers': raise --memory"
        )
    diagonal = basis.dense().diagonal()
    sums = {name: float(diagonal[part].sum()) for name, part in layers.items()}
    units = _units({name: (sums[name], part.stop - part.start) for name, part in layers.items()})
    of_parameters = torch.empty_like(diagonal)
    for name, part in layers.items():
        of_parameters[part] = units[name]
    return CoupledPerLayer(basis, of_parameters)


def _units(layers: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """m_l / m of every layer, from its trace and size."""
    for name, (trace, size) in layers.items():
        if not trace > 0:
            raise DampingError(
                f"the mean eigenvalue of layer {name} is {trace / size:.3g}: it gives no damping"
            )
    traces, sizes = zip(*layers.values(), strict=True)
    mean = sum(traces) / sum(sizes)
    return {name: trace / size / mean for name, (trace, size) in layers.items()}


def own_inverse(curvature: Curvature) -> str:
    """Why no inversion reaches it: it has an inverse of its own; empty if one does."""
    basis = curvature.eigenbasis
    if curvature.solver_alone:
        return "its inverse is what its solver makes of λ"
    own = curvature.negative is not None or (basis is not None and basis.factored_damping())
    return "it has an inverse of its own" if own else ""


def _check_open(curvature: Curvature) -> None:
    reason = own_inverse(curvature)
    if reason:
        raise NotAvailableError(reason)


@dataclass(frozen=True)
class Inversion:
    """How λ enters an inverse; by default as (C + λI)⁻¹. Its fields are its numbers.

    Raises:
        DecompositionError: a number that is not positive.
    """

    name: ClassVar[str] = "damped"
    """As it is specified."""
    words: ClassVar[str] = "λI is added to every rung"
    """What it does, as a clause."""
    one_damping: ClassVar[bool] = True
    """Whether λ is added to C, so that C + λI is what it inverts."""
    signs: ClassVar[bool] = False
    """Whether it says itself what becomes of negative eigenvalues."""
    matrices: ClassVar[bool] = False
    """Whether rungs that couple layers must be formed."""
    partial: ClassVar[bool] = False
    """Whether rungs that have no such inverse stay damped."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        rules = {name: number(0, above=True) for name in asdict(self)}
        check_fields(self, rules, DecompositionError, f"the {{}} of inversion {self.name}")

    def __str__(self) -> str:
        """As it is specified, with its numbers."""
        return ":".join([self.name, *(f"{value:g}" for value in asdict(self).values())])

    def of(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """The rung with this inverse.

        Args:
            rung: C.
            layers: name → its parameters.
            formed: whether P × P matrices fit.

        Raises:
            NotAvailableError: there is none.
            DampingError: it would be singular.
        """
        return rung


class PerLayer(Inversion):
    """λ_l = λ m_l / m."""

    name = "per_layer"
    words = "every layer is damped in proportion to its own mean eigenvalue, by λ in the mean"
    one_damping = False
    matrices = True

    def of(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """See ``per_layer``."""
        return per_layer(rung, layers, formed)


class Factored(Inversion):
    """A and S damped in place of their product."""

    name = "factored"
    words = "both Kronecker factors are damped in place of their product"
    partial = True

    def of(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """Of rungs with factors."""
        _check_open(rung)
        return rung.by_factors()


class PseudoInverted(Inversion):
    """1/|μ| above λ, nothing below."""

    name = "pseudo_inverse"
    words = "nothing is damped, and eigenvalues up to λ are left out"
    one_damping = False
    signs = matrices = True

    def of(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """Under the policy of that name."""
        _check_open(rung)
        return UnderPolicy(rung, PseudoInverse())


@dataclass(frozen=True)
class Truncated(Inversion):
    """1/(μ + λ) above ε, nothing below."""

    threshold: float = 1e-6
    name = "truncated"
    words = "λI is added, and then eigenvalues up to a threshold are left out"
    signs = matrices = True

    def of(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """Under the policy of that name."""
        _check_open(rung)
        return UnderPolicy(rung, Truncate(self.threshold))


DAMPED = Inversion()
INVERSIONS: dict[str, type[Inversion]] = {
    kind.name: kind for kind in (Inversion, PerLayer, Factored, PseudoInverted, Truncated)
}
"""Name → how λ enters."""


def as_inversion(written: str) -> Inversion:
    """Inversion as it is specified: its name, with a number after a colon where it takes one.

    Raises:
        DecompositionError: an unknown one, or a number that it does not take.
    """
    return numbered(written, "inversion", INVERSIONS)
