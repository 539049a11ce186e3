"""A model at its present parameters on one split of its problem's data, in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.inputs import apply, double, rows_in, take
from decomposition.memory import shrinking
from decomposition.problem import Problem, Split

ROWS = 1024
"""Examples of one forward pass."""


def outputs_on(problem: Problem, split: Split) -> Float[Tensor, "N C"]:
    """f(x) of every example, C·T numbers where there are T positions."""
    model, x = problem.double_model(), double(getattr(problem, split)[0])
    with torch.no_grad():
        parts = shrinking(lambda rows: apply(model, take(x, rows)), rows_in(x), ROWS)
        return torch.cat(list(parts))


def mean_loss(problem: Problem, split: Split) -> float:
    """(1/N) Σ ℓ_n, of training examples with their weights."""
    y = problem.rows(split)[1]
    targets = y.double() if y.is_floating_point() else y
    return float(problem.loss_function.per_example(outputs_on(problem, split), targets).mean())
