"""Problems on both sides of P = N·C, in every form, and G and its blocks as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from decomposition.chain import build_chain
from decomposition.chain.approximations import Method
from decomposition.chain.plan import DENSE_COPIES, plan_chain
from decomposition.curvature import Curvature
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from tests import cases, general


def many_parameters() -> Problem:
    """P = 115 > N·C = 36: the GGN through its Gram matrix where it is not formed."""
    return cases.classification(mlp((4, 14, 3), nn.Tanh, 0), n=12)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "tanh": cases.tanh,
    "many_parameters": many_parameters,
    "grouped": general.conv_grouped,
    "cnn": general.cnn,
}


def chain_of(
    problem: Problem, extra: Mapping[str, Method], dense: bool = True
) -> dict[str, Curvature]:
    """The chain with these beside it, dense or just beyond the memory for dense matrices."""
    whole = int(DENSE_COPIES * 8 * problem.num_parameters**2)
    return build_chain(problem, extra, plan_chain(problem, whole if dense else whole - 1))


def columns(problem: Problem, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(problem.num_parameters, count, generator=generator, dtype=torch.float64)


def ggn(problem: Problem) -> np.ndarray:
    return build_chain(problem)["ggn"].dense().numpy()


def damped_inverse(matrix: np.ndarray, damping: float) -> np.ndarray:
    return np.linalg.inv(matrix + damping * np.eye(len(matrix)))
