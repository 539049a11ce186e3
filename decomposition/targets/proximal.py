"""Gradient of the proximal Bregman objective, for many removed examples at once.

For training example i and weight w (1: removed altogether)

    PBO_i(θ) = (1/N) Σ_n D_n(f(x_n; θ), f(x_n; θ_s)) − (w/N) ℓ(f(x_i; θ), y_i) + (λ/2) ‖θ − θ_s‖²

with θ_s the trained parameters and D_n the Bregman divergence of the loss in the outputs,
D_n(f, f') = ℓ_n(f) − ℓ_n(f') − ∇ℓ_n(f')ᵀ(f − f'): for cross-entropy KL(softmax f' ‖ softmax f),
for the squared error ‖f − f'‖² / C. At θ_s its gradient is −(w/N) g_i, and its Hessian is
G + λI up to the removed term, with G the generalised Gauss–Newton matrix.

The removed example's own divergence cancels the curvature of −ℓ_i and leaves a term linear in
f(x_i), so that the objective of a linear model has one minimum. That of a deeper network is not
bounded below: its outputs grow faster than any quadratic. What is meant by the response is the
minimum that θ_s is moved to, and for a small λ there may be none.

Shapes: m removed examples, N training examples, C outputs, P parameters.
Source: Bae et al. (2022), "If influence functions are the answer, then what is the question?",
arXiv 2209.05364, equation 12.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import vmap

from decomposition.device import chunk_bytes
from decomposition.inputs import Inputs, apply_with, double, rows_in, take
from decomposition.losses import Loss
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.retraining.trainer import numbers_per_example

ROWS = 1 << 15
"""Model evaluations at a time: rows of the training set times removed examples."""
ACTIVATIONS = 1 << 26
"""Numbers that these evaluations keep for the backward pass, at most: 512 MiB."""


class ProximalObjective:
    """The objectives of a trained problem at one damping λ, in float64."""

    def __init__(self, problem: Problem, damping: float) -> None:
        """Evaluate the trained model on the training examples."""
        self.damping, self._loss = damping, problem.loss_function
        self._model = problem.double_model().requires_grad_(False)
        self._shapes = {name: self._model.get_parameter(name).shape for name in problem.trainable}
        x, y = problem.rows("train")
        self._x, self._y = double(x), y.double() if y.is_floating_point() else y
        self._query = double(problem.query[0])
        self.theta = problem.theta()
        one = 8 * numbers_per_example(problem.model, x)
        self._rows = min(ROWS, max(1, chunk_bytes(problem.device, 8 * ACTIVATIONS) // one))
        self._slope = output_gradient(self._loss, self._at_start(), self._y)

    def gradient(
        self, delta: Float[Tensor, "m P"], removed: Int64[Tensor, " m"], weight: float = 1.0
    ) -> Float[Tensor, "m P"]:
        """∇PBO of example ``removed[k]`` at θ_s + ``delta[k]``.

        Raises:
            OutOfMemoryError: these models do not fit with even one training example.
        """
        theta = (self.theta + delta).requires_grad_()
        total = torch.zeros_like(delta)

        def add(rows: slice) -> None:
            with torch.enable_grad():
                outputs = self._outputs(theta, take(self._x, rows))
            y = self._y[rows].expand(len(delta), *self._y[rows].shape)
            slope = output_gradient(self._loss, outputs.detach(), y)
            change = slope - self._slope[rows]
            here = (rows.start <= removed) & (removed < rows.stop)
            where = removed[here] - rows.start
            change[here, where] -= weight * slope[here, where]
            total.add_(torch.autograd.grad(outputs, theta, change)[0])

        for _ in shrinking(add, len(self._y), self._rows // len(delta)):
            pass
        return total / len(self._y) + self.damping * delta

    @torch.no_grad()
    def query_outputs(self, delta: Float[Tensor, "m P"]) -> Float[Tensor, "m Q C"]:
        """f(x_q; θ_s + δ)."""
        theta = self.theta + delta
        parts = shrinking(
            lambda rows: self._outputs(theta, take(self._query, rows)),
            rows_in(self._query),
            self._rows // len(delta),
        )
        return torch.cat(list(parts), dim=1)

    @torch.no_grad()
    def _at_start(self) -> Float[Tensor, "N C"]:
        parts = shrinking(
            lambda rows: apply_with(self._model, {}, take(self._x, rows)), len(self._y), self._rows
        )
        return torch.cat(list(parts))

    def _outputs(self, theta: Float[Tensor, "m P"], x: Inputs) -> Float[Tensor, "m n C"]:
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = theta.split(sizes, dim=1)
        stacked = {
            name: part.view(len(theta), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        return vmap(lambda parameters: apply_with(self._model, parameters, x))(stacked)


def output_gradient(loss: Loss, f: Float[Tensor, "*cells C"], y: Tensor) -> Tensor:
    """∇_f ℓ(f, y) of every example."""
    leaf = f.detach().reshape(-1, f.shape[-1]).requires_grad_()
    targets = y.reshape(len(leaf), *y.shape[f.ndim - 1 :])
    with torch.enable_grad():
        total = loss.per_example(leaf, targets).sum()
    return torch.autograd.grad(total, leaf)[0].view_as(f)
