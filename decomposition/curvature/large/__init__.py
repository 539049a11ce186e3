"""Curvature too large to write down: products, iterative solvers, the dual Gram matrix."""

from decomposition.curvature.large.blockwise import Blockwise
from decomposition.curvature.large.cg import cg
from decomposition.curvature.large.dual import DualCurvature, dual_rungs
from decomposition.curvature.large.leading import LeadingCurvature, leading_curvature
from decomposition.curvature.large.matrix_free import MatrixFreeCurvature
from decomposition.curvature.large.minres import minres
from decomposition.curvature.large.products import (
    BlockGGNProduct,
    Product,
    ggn_product,
    hessian_product,
)
from decomposition.curvature.large.solution import Solution, SolverError, Stopping

__all__ = [
    "BlockGGNProduct",
    "Blockwise",
    "DualCurvature",
    "LeadingCurvature",
    "MatrixFreeCurvature",
    "Product",
    "Solution",
    "SolverError",
    "Stopping",
    "cg",
    "dual_rungs",
    "ggn_product",
    "hessian_product",
    "leading_curvature",
    "minres",
]
