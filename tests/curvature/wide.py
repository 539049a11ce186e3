"""Problems with more parameters than rows of the Jacobian, small enough to be written out."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from tests import cases, general


def plain() -> Problem:
    """P = 67, N·C = 15."""
    return cases.classification(mlp((4, 8, 3), nn.GELU, 0), n=5)


def plain_regression() -> Problem:
    """P = 58, N·C = 12."""
    return cases.regression(mlp((4, 8, 2), nn.Tanh, 0), n=6)


WIDE: dict[str, Callable[[], Problem]] = {
    case.__name__: case
    for case in (plain, plain_regression, general.cnn, general.sequence, general.layer_norm)
}
"""A layer used once, convolutions with positions, a sequence, and exact blocks."""
