"""Curvature matrices behind one interface: products, damped solves, eigenvalues, dense form."""

from decomposition.curvature.base import Curvature, Diagonalised, NotAvailableError
from decomposition.curvature.block_diagonal import BlockDiagonal
from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.kronecker import KroneckerBasis, KroneckerCurvature
from decomposition.curvature.user import EigenpairCurvature, ScaledIdentity, SolveCurvature

__all__ = [
    "BlockDiagonal",
    "Curvature",
    "DenseCurvature",
    "Diagonalised",
    "EigenpairCurvature",
    "KroneckerBasis",
    "KroneckerCurvature",
    "NotAvailableError",
    "ScaledIdentity",
    "SolveCurvature",
]
