"""A curvature of the user's own: a solver, and perhaps products."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from decomposition.checks import checked, whole
from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.estimate import Estimate, xtrace
from decomposition.curvature.matrix_free import estimated_norm
from decomposition.curvature.operator import PROBES, Curvature, NotAvailableError
from decomposition.damping import NegativeCurvature
from decomposition.device import CPU
from decomposition.errors import DecompositionError
from decomposition.reals import check_finite, real_tensor


class SolveCurvature(Curvature):
    """A curvature known by its solver, and perhaps its products.

    Args:
        size: P.
        solve: (v (P, k), damping) → (C + λI)⁻¹ v. How negative eigenvalues count is its matter,
            whatever policy is asked for.
        matvec: v (P, k) → C v; without it only attribution is scored, not the spectrum.
        device: where both are given their vectors.

    Raises:
        DecompositionError: the size is no whole number >= 1, or a function is none; later, what
            one of them returns is no array of finite real numbers of the vector's shape.
    """

    solver_alone = True

    def __init__(
        self,
        size: int,
        solve: Callable[[Tensor, float], Tensor],
        matvec: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = CPU,
    ) -> None:
        """Keep the functions."""
        if not callable(solve) or not (matvec is None or callable(matvec)):
            raise DecompositionError(
                f"solve and matvec are functions of vectors, got {type(solve).__name__} and "
                f"{type(matvec).__name__}"
            )
        self.size = checked("size", size, whole(1, bits=63), DecompositionError)
        self.device = torch.device(device)
        self._user_solve, self._user_matvec = solve, matvec

    def _matvec(self, v: Tensor) -> Tensor:
        if self._user_matvec is None:
            raise NotAvailableError(
                "this curvature was given by its solver alone: pass matvec= to SolveCurvature for "
                "products, the dense matrix and spectral errors"
            )
        return _checked(self._user_matvec(v.clone()), v, "matvec")

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        # a copy: a solver that works in place must not change the caller's gradients
        return _checked(self._user_solve(v.clone(), damping), v, "solve")

    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the dense matrix, if products are known and it fits.

        Raises:
            NotAvailableError: they are not, or it does not.
            DecompositionError: the products are those of no symmetric matrix.
        """
        return DenseCurvature(self.dense()).eigenvalues()

    def dense(self) -> Tensor:
        """The matrix, from P products.

        Raises:
            NotAvailableError: it does not fit into memory.
        """
        if self.matrix_free:
            raise NotAvailableError(
                f"the matrix of this curvature has {self.size:,}² entries, which do not fit: raise "
                "--memory"
            )
        return super().dense()

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """tr C from the products."""
        return xtrace(self, probes, seed) if self.matrix_free else super().trace()

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """‖C‖_F from the products."""
        return estimated_norm(self, probes, seed) if self.matrix_free else super().frobenius_norm()

    def by_products(self) -> SolveCurvature:
        """The same, whose matrix is never written out."""
        other = copy.copy(self)
        other.matrix_free = self._user_matvec is not None
        return other


def _checked(result: object, v: Tensor, name: str) -> Tensor:
    found = real_tensor(result, f"what {name} returned").to(v.device)
    if found.shape != v.shape:
        raise DecompositionError(
            f"{name} returned shape {tuple(found.shape)} for a vector of shape {tuple(v.shape)}"
        )
    check_finite(found, f"{name} returned a non-finite value")
    return found
