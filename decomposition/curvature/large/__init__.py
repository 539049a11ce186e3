"""Rungs of models whose matrices are too large: by products, and by the dual Gram matrix."""

from decomposition.curvature.large.dual import Blockwise, DualCurvature, dual_rungs
from decomposition.curvature.large.matrix_free import MatrixFreeCurvature
from decomposition.curvature.large.products import BlockwiseProduct, ggn_product, hessian_product
from decomposition.curvature.large.solvers import (
    NotConvergedError,
    conjugate_gradients,
    minres,
)

__all__ = [
    "Blockwise",
    "BlockwiseProduct",
    "DualCurvature",
    "MatrixFreeCurvature",
    "NotConvergedError",
    "conjugate_gradients",
    "dual_rungs",
    "ggn_product",
    "hessian_product",
    "minres",
]
