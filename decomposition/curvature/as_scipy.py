"""A curvature among SciPy's linear operators, for its eigensolvers and iterative solvers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from decomposition.linalg import to_numpy


class HasProducts(Protocol):
    """What is needed of a curvature."""

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        ...

    def matvec(self, v: np.ndarray) -> Tensor:
        """C v."""
        ...


class SymmetricOperator(LinearOperator):
    """C = Cᵀ by its products with NumPy vectors (P,) and matrices (P, k), float64."""

    def __init__(self, curvature: HasProducts) -> None:
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
