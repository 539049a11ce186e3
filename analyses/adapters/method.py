"""One method of a library: how it is built once, and scored at any damping."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from decomposition import Problem

Scorer = Callable[[float | None], Tensor]
"""damping, as the library takes it → scores (queries, train)."""


@dataclass(frozen=True)
class Method:
    """What a library calls by one name."""

    library: str
    name: str
    build: Callable[[Problem, int], Scorer]
    """(trained problem, seed) → its scorer; what every damping shares is computed here."""
    defaults: tuple[float | None, ...]
    """Dampings that its documentation names: the default, then rules that it has."""
    unit: Callable[[Problem, float], float] | None = None
    """(problem, tr G / P) → a damping of about its curvature's mean eigenvalue; None: it has no
    damping, or none but rules."""
    samples: bool = False
    """Whether the seed matters."""
    ours: str = ""
    """The rung of ours that it estimates."""
    slow: bool = False
    """Whether it takes minutes for every damping."""

    @property
    def label(self) -> str:
        """Its name beside other libraries' methods."""
        return f"{self.library} {self.name}"


def mean_loss(problem: Problem, mean_eigenvalue: float) -> float:
    """The unit of curvatures of the mean loss."""
    return mean_eigenvalue


def summed_loss(problem: Problem, mean_eigenvalue: float) -> float:
    """The unit of curvatures of the summed loss."""
    return problem.num_examples * mean_eigenvalue


def relative(problem: Problem, mean_eigenvalue: float) -> float:
    """The unit of libraries that take multiples of their mean eigenvalue."""
    return 1.0


def model_of(problem: Problem) -> nn.Module:
    """A copy of the model in single precision."""
    return copy.deepcopy(problem.model).float().eval()


def data_of(problem: Problem) -> tuple[TensorDataset, TensorDataset]:
    """Training examples and queries."""
    train, query = (
        TensorDataset(x.float() if x.is_floating_point() else x, y)
        for x, y in (problem.train, problem.query)
    )
    return train, query


def cross_entropy(f: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The loss of the problems here."""
    return functional.cross_entropy(f, y.long(), reduction=reduction)


def drawn(f: Tensor) -> Tensor:
    """Labels from the model's own probabilities."""
    return torch.multinomial(f.detach().softmax(-1), 1).flatten()
