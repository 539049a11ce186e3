"""Curvature matrices behind one interface: products, damped solves, eigenvalues, dense form."""

from decomposition.curvature.base import Curvature, Diagonalised, NotAvailableError
from decomposition.curvature.block_diagonal import BlockDiagonal
from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.fisher import EXACT, Empirical, Exact, Fisher, Sampled
from decomposition.curvature.kronecker import KroneckerBasis, KroneckerCurvature
from decomposition.curvature.negative_eigenvalues import UnderPolicy
from decomposition.curvature.user import EigenpairCurvature, ScaledIdentity, SolveCurvature

__all__ = [
    "EXACT",
    "BlockDiagonal",
    "Curvature",
    "DenseCurvature",
    "Diagonalised",
    "EigenpairCurvature",
    "Empirical",
    "Exact",
    "Fisher",
    "KroneckerBasis",
    "KroneckerCurvature",
    "NotAvailableError",
    "Sampled",
    "ScaledIdentity",
    "SolveCurvature",
    "UnderPolicy",
]
