"""Closed forms for a linear model with squared error, by NumPy alone.

With A = [X | 1] (N, k), residuals r_i = y_i − Ŵ a_i, leverage h_i = a_iᵀ (AᵀA)⁻¹ a_i and, for a
query, c_qi = a_qᵀ (AᵀA)⁻¹ a_i and residual e_q: removing example i moves e_q to
e_q + c_qi r_i / (1 − h_i) (Sherman–Morrison). The influence score at λ = 0 is the part of the
change of loss that is linear in c_qi / (1 − h_i), taken at h_i = 0:
τ[q, i] = (2/C) c_qi e_q·r_i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.terms import plain_blocks
from decomposition.errors import ProblemError
from decomposition.inputs import double
from decomposition.losses import MeanSquaredError
from decomposition.problem import Problem


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """Exact effects of removing one training example and fitting again."""

    change: Float[np.ndarray, "Q N"]
    """Loss on query q without example i, minus with it."""
    first_order: Float[np.ndarray, "Q N"]
    """Influence scores at λ = 0."""
    leverage: Float[np.ndarray, " N"]
    """h_i, in [1/N, 1]."""


def least_squares(problem: Problem) -> Float[np.ndarray, "C k"]:
    """The minimiser [W | b] (C, d + 1) of the training loss of a linear model.

    Raises:
        ProblemError: another model or loss, or fewer examples than a unique minimum needs.
    """
    a, y, _, _ = _design(problem)
    return np.linalg.lstsq(a, y, rcond=None)[0].T


def at_least_squares(problem: Problem) -> dict[str, Tensor]:
    """The minimiser as the model's parameters (float64), for ``load_state_dict``."""
    solution = torch.from_numpy(least_squares(problem))
    values = (solution[:, :-1].contiguous(), solution[:, -1].contiguous())
    names = [name for name, _ in problem.model.named_parameters()]
    return dict(zip(names, values, strict=True))


def leave_one_out(problem: Problem) -> LeaveOneOut:
    """Exact leave-one-out effects on the loss of every query, and their first-order part.

    Raises:
        ProblemError: another model or loss, fewer examples than a unique minimum needs, or an
            example without which the minimum is not unique (leverage 1).
    """
    a, y, query_a, query_y = _design(problem)
    outputs = y.shape[1]
    q, r = np.linalg.qr(a)
    query_q = np.linalg.solve(r.T, query_a.T).T
    leverage = np.square(q).sum(1)
    if leverage.max() > 1 - 1e-10:
        raise ProblemError(
            f"without training example {leverage.argmax()} the least-squares solution is not "
            "unique (its leverage is 1): drop it, or the feature that it alone determines"
        )
    solution = np.linalg.lstsq(a, y, rcond=None)[0]
    residual, query_residual = y - a @ solution, query_y - query_a @ solution
    cross = query_q @ q.T
    along = query_residual @ residual.T
    moved = cross / (1 - leverage)
    squares = np.square(residual).sum(1)
    return LeaveOneOut(
        change=(2 * moved * along + moved**2 * squares) / outputs,
        first_order=2 / outputs * cross * along,
        leverage=leverage,
    )


def _design(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    blocks = problem.blocks
    linear = problem.plain and len(plain_blocks(problem)) == 1 and plain_blocks(problem)[0].bias
    if not linear or not isinstance(problem.loss_function, MeanSquaredError):
        raise ProblemError(
            f"{problem.name}: closed forms are those of one linear layer with a bias and squared "
            f"error; the model has {len(blocks)} layers and the loss is "
            f"{problem.loss_function.name}"
        )
    (x, y), (query_x, query_y) = (
        (double(pair[0]).numpy(), pair[1].double().numpy())
        for pair in (problem.train, problem.query)
    )
    a, query_a = (np.column_stack([part, np.ones(len(part))]) for part in (x, query_x))
    if np.linalg.matrix_rank(a) < a.shape[1]:
        raise ProblemError(
            f"{problem.name}: {len(a)} training examples do not determine the {a.shape[1]} "
            "weights of an output: keep more examples, or drop dependent features"
        )
    return a, y, query_a, query_y
