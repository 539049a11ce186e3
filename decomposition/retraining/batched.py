"""Training many models at once: one batched product per layer, one update for all parameters.

Shapes: M models, N training examples, n examples that each model sees, B examples of a batch,
Q queries, C outputs, P parameters of one model. Each model has its own examples in its own
order; n is common to all, so that their batches have one shape.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from decomposition.losses import CrossEntropy, Loss
from decomposition.problem import Problem
from decomposition.retraining.stacked import StackedModel, runs_directly
from decomposition.retraining.updates import gradient_decay, make_update

QUERY_ROWS = 256

EpochOrder = Callable[[int], Int64[Tensor, "M n"]]
"""Epoch → row i lists the training examples of model i in the order in which it sees them."""


class BatchedTrainer:
    """Trains stacks of copies of a problem's model with its recipe."""

    def __init__(self, problem: Problem) -> None:
        """Bring the data to the training precision and choose how the module runs."""
        self.recipe = problem.recipe
        self.model = problem.model
        dtype = self.recipe.torch_dtype
        x, y = problem.train
        self.x = x.to(dtype).contiguous()
        self.y = y.to(dtype) if y.is_floating_point() else y
        self.query_x = problem.query[0].to(dtype)
        self.loss = problem.loss_function
        self.direct = runs_directly(self.model, x)

    def stack(self, models: int) -> StackedModel:
        """An empty stack of ``models`` copies."""
        decay = gradient_decay(self.recipe)
        return StackedModel(self.model, models, self.recipe.torch_dtype, self.direct, decay)

    def train(
        self, stack: StackedModel, order: EpochOrder, after_epoch: Callable[[int], None]
    ) -> None:
        """Train ``stack`` in place up to the recipe's last epoch.

        ``after_epoch`` is given the number of epochs done, from 0; it may raise to give up.
        """
        recipe, step = self.recipe, 0
        update = make_update(recipe, stack.theta, stack.sums)
        after_epoch(0)
        for epoch in range(recipe.last_epoch):
            rows = order(epoch)
            total = recipe.epochs * recipe.steps_per_epoch(rows.shape[1])
            for batch in rows.split(recipe.batch_size, dim=1):
                self._accumulate_gradient(stack, batch)
                update.step(recipe.learning_rate(step, total))
                step += 1
            after_epoch(epoch + 1)

    def _accumulate_gradient(self, stack: StackedModel, batch: Int64[Tensor, "M B"]) -> None:
        rows = batch.flatten()
        x = self.x.index_select(0, rows).view(*batch.shape, *self.x.shape[1:])
        y = self.y.index_select(0, rows).view(*batch.shape, *self.y.shape[1:])
        with torch.enable_grad():
            outputs = stack(x)
        outputs.backward(mean_loss_gradient(self.loss, outputs.detach(), y))

    @torch.no_grad()
    def query_outputs(self, stack: StackedModel) -> Float[Tensor, "M Q C"]:
        """f(x_q) of every model in the stack."""
        return torch.cat(
            [stack(x.expand(stack.models, *x.shape)) for x in self.query_x.split(QUERY_ROWS)],
            dim=1,
        )


def mean_loss_gradient(loss: Loss, f: Float[Tensor, "M B C"], y: Tensor) -> Float[Tensor, "M B C"]:
    """∂/∂f of the batch means (1/B) Σ_b ℓ(f_mb, y_mb) of every model."""
    models, batch, outputs = f.shape
    if type(loss) is CrossEntropy and loss.one_hot_targets:
        # closed form (softmax(f) − onehot(y)) / B, along the storage order of f; an ignored
        # label weighs nothing, and need not be an index
        scale = (y != loss.ignore_index).to(f.dtype).mul_(1.0 / batch)[:, None]
        gradient = torch.softmax(f.mT, dim=1).mul_(scale)
        gradient.scatter_add_(1, y.clamp(0, outputs - 1)[:, None], -scale)
        return gradient.mT
    leaf = f.reshape(models * batch, outputs).requires_grad_()
    with torch.enable_grad():
        total = loss.per_example(leaf, y.flatten(0, 1)).sum() / batch
    return torch.autograd.grad(total, leaf)[0].view_as(f)
