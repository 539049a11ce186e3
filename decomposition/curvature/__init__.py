"""Curvature matrices behind one interface: products, damped solves, eigenvalues, dense form."""

from decomposition.curvature.block_diagonal import BlockDiagonal
from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.estimate import Estimate
from decomposition.curvature.fisher import EXACT, Empirical, Exact, Fisher, Sampled
from decomposition.curvature.inversion import UnderPolicy
from decomposition.curvature.kronecker import KroneckerBasis, KroneckerCurvature
from decomposition.curvature.low_rank import EigenpairCurvature, ScaledIdentity
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.operator import Curvature, Diagonalised, NotAvailableError
from decomposition.curvature.user import SolveCurvature

__all__ = [
    "EXACT",
    "BlockDiagonal",
    "Curvature",
    "DenseCurvature",
    "Diagonalised",
    "EigenpairCurvature",
    "Empirical",
    "Estimate",
    "Exact",
    "Fisher",
    "KroneckerBasis",
    "KroneckerCurvature",
    "MatrixFreeCurvature",
    "NotAvailableError",
    "Sampled",
    "ScaledIdentity",
    "SolveCurvature",
    "UnderPolicy",
]
