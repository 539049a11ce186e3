"""The same curvature under another inverse: a policy, or a damping of every layer by its own mean.

A rung is a matrix C; how λ enters its inverse is a treatment, which these wrappers change without
touching C, its eigenvalues or its basis:

    UnderPolicy(C, policy)      d_policy(μ, λ), whatever policy is asked for
    ScaledDamping(C, m)         (C + m λ I)⁻¹
    per_layer(C, layers)        (C + c ⊕_l m_l I)⁻¹, m_l = tr C_ll / P_l, with c in place of λ

The factored damping of K-FAC is asked of the operator itself, ``Curvature.by_factors``.
Where layers are coupled, per-layer damping is not diagonal in the eigenbasis of C: the policy makes
V diag(d(μ, 0)) Vᵀ, the damping is added to it, and Cholesky solves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from decomposition.curvature.block_diagonal import BlockDiagonal
from decomposition.curvature.damped import FactoredDamping
from decomposition.curvature.estimate import Estimate
from decomposition.curvature.operator import (
    PROBES,
    Curvature,
    Diagonalised,
    NotAvailableError,
    Solutions,
    Solve,
)
from decomposition.damping import NegativeCurvature, as_policy
from decomposition.errors import DampingError
from decomposition.linalg import matmul, solve_positive


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
        self.most_products = curvature.most_products
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
    """(C + m λ I)⁻¹: λ counts in units of m.

    Args:
        curvature: C; λ may enter its inverse by its factors.
        unit: m > 0.
    """

    def __init__(self, curvature: Curvature, unit: float) -> None:
        """Keep the curvature and the unit."""
        super().__init__(curvature)
        self._unit = unit

    def factored_damping(self) -> FactoredDamping:
        """λ (m − 1) besides λ itself; of √λ κ + λ ν, what they are at m λ."""
        own = super().factored_damping() or FactoredDamping.none(self.size, self.device)
        return FactoredDamping(
            self._unit**0.5 * own.root, self._unit * own.whole + (self._unit - 1.0)
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
    """(d(C) + c D)⁻¹ of a C that couples layers, with d(C) = V diag(d(μ, 0)) Vᵀ: by Cholesky.

    Args:
        curvature: C, with an eigenbasis, and a matrix that fits.
        means: diagonal of D, (P,).
    """

    def __init__(self, curvature: Diagonalised, means: Tensor) -> None:
        """Nothing is computed yet."""
        super().__init__(curvature)
        self._means = means

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
            vectors = self.basis_columns(panel)
            matrix += matmul(vectors * change[panel], vectors.T)
        matrix.diagonal().add_(damping * self._means)
        return solve_positive(matrix, v)


def per_layer(curvature: Curvature, layers: Mapping[str, slice], formed: bool = True) -> Curvature:
    """C with c · m_l in place of λ on every layer l, m_l = tr C_ll / P_l its mean eigenvalue.

    Kronfluence damps so with c = 0.1 where its ``damping_factor`` is None.

    Args:
        curvature: C.
        layers: name → its parameters; where C does not couple layers, its own blocks are taken.
        formed: whether P × P matrices fit.

    Raises:
        NotAvailableError: it has an inverse of its own, or couples layers and is not formed.
        DampingError: a layer's mean eigenvalue is not positive.
    """
    basis = curvature.eigenbasis
    if curvature.negative is not None or (basis is not None and basis.factored_damping()):
        raise NotAvailableError("it has an inverse of its own, which leaves no λ to set")
    if curvature.solver_alone:
        raise NotAvailableError("its solver takes one λ for all layers")
    if not curvature.coupled:
        blocks = curvature.diagonal_blocks()
        means = {name: float(block.trace()) / block.size for name, block in blocks.items()}
        _check_positive(means)
        return BlockDiagonal({n: ScaledDamping(b, means[n]) for n, b in blocks.items()})
    if basis is None or not formed:
        raise NotAvailableError(
            "a damping of each layer asks for its matrix, or its layers': raise --memory"
        )
    diagonal = basis.dense().diagonal()
    means = {name: float(diagonal[part].mean()) for name, part in layers.items()}
    _check_positive(means)
    of_parameters = torch.empty_like(diagonal)
    for name, part in layers.items():
        of_parameters[part] = means[name]
    return CoupledPerLayer(basis, of_parameters)


def _check_positive(means: Mapping[str, float]) -> None:
    for name, mean in means.items():
        if not mean > 0:
            raise DampingError(
                f"the mean eigenvalue of layer {name} is {mean:.3g}: it gives no damping"
            )
