"""The table of small problems over which every identity is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.recipe import Recipe

N, QUERIES = 24, 7


class Residual(nn.Module):
    """Layers registered out of call order, a skip connection, a gate, and a layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(5, 3)
        self.first = nn.Linear(4, 5)
        self.inner = nn.Linear(5, 5, bias=False)
        self.gate = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        h = h + nn.functional.gelu(self.inner(h)) * torch.sigmoid(self.gate(x))
        return self.out(h)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def classification(model: nn.Module, n: int = N, classes: int = 3, d_in: int = 4) -> Problem:
    labels = torch.randint(0, classes, (n + QUERIES,), generator=_generator(1))
    x = _normal(n + QUERIES, d_in, seed=2)
    return Problem(
        model.double(),
        nn.CrossEntropyLoss(),
        (x[:n], labels[:n]),
        (x[n:], labels[n:]),
        Recipe(),
        name="case",
    )


def regression(model: nn.Module, n: int = N, outputs: int = 2, d_in: int = 4) -> Problem:
    x, y = _normal(n + QUERIES, d_in, seed=3), _normal(n + QUERIES, outputs, seed=4)
    data = (x[:n], y[:n]), (x[n:], y[n:])
    return Problem(model.double(), nn.MSELoss(), *data, Recipe(), name="case")


def deep_linear() -> Problem:
    return regression(mlp((4, 3, 3, 2), nn.Identity, 0))


def linear_softmax() -> Problem:
    return classification(mlp((4, 3), nn.Identity, 0))


def linear_regression() -> Problem:
    return regression(mlp((4, 2), nn.Identity, 0))


def one_example() -> Problem:
    return classification(mlp((4, 5, 3), nn.Tanh, 0), n=1)


def relu() -> Problem:
    return classification(mlp((4, 6, 5, 3), nn.ReLU, 0))


def tanh() -> Problem:
    return classification(mlp((4, 5, 4, 3), nn.Tanh, 0))


def gelu() -> Problem:
    return classification(mlp((4, 5, 4, 3), nn.GELU, 0))


def tanh_regression() -> Problem:
    return regression(mlp((4, 5, 2), nn.Tanh, 0))


def residual() -> Problem:
    torch.manual_seed(0)
    return classification(Residual())


def whitened() -> Problem:
    """Inputs with covariance exactly I and mean 0: the first layer's A = I is degenerate."""
    problem = classification(mlp((4, 5, 3), nn.Tanh, 0))
    x, y = problem.train
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / len(x))).T
    return replace(problem, train=(x, y))


CASES: dict[str, Callable[[], Problem]] = {
    case.__name__: case
    for case in (
        deep_linear,
        linear_softmax,
        linear_regression,
        one_example,
        relu,
        tanh,
        gelu,
        tanh_regression,
        residual,
        whitened,
    )
}
