"""Training many models at once: one operation for all of them, one update for all parameters.

Shapes: M models, N training examples, n examples that each model sees, B examples of a batch,
Q queries, C outputs, P parameters of one model. Each model has its own examples in its own
order; n is common to all, so that their batches have one shape.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from decomposition.inputs import Inputs, apply, double, each, rows_in, take, to
from decomposition.losses import CrossEntropy, Loss
from decomposition.losses.weighted import Weighted
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.recipe import Recipe
from decomposition.retraining.stacks import Stack, Way, make_stack
from decomposition.retraining.trial import choose_way

QUERY_ROWS = 256
COUNTED_ROWS = 2
"""Examples whose saved numbers are counted."""
Result = TypeVar("Result")
Job = TypeVar("Job")

EpochOrder = Callable[[int], Int64[Tensor, "M n"]]
"""Epoch → row i lists the training examples of model i in the order in which it sees them."""


class BatchedTrainer:
    """Trains stacks of copies of a problem's model with its recipe."""

    def __init__(self, problem: Problem) -> None:
        """Bring the data to the training precision and choose how the module runs."""
        self.recipe = problem.recipe
        self.model = problem.model
        dtype = self.recipe.torch_dtype
        x, y = problem.rows("train")
        self.x = each(to(x, dtype), torch.Tensor.contiguous)
        self.y = to(y, dtype)
        self.query_x = to(problem.query[0], dtype)
        self.loss = problem.loss_function
        self.way: Way = choose_way(self.model, x)
        batch = min(self.recipe.batch_size, rows_in(x))
        self.batch_rows = batch
        """Examples of a batch that pass together: all of them, or those that were seen to fit."""
        self.activations = 0
        """Numbers that one model holds for its backward pass; 0 where weights outweigh them."""
        self.query_rows = QUERY_ROWS
        if self.way == "function":
            self.activations = batch * numbers_per_example(self.model, x)
            self.query_rows = min(batch, QUERY_ROWS)

    def stack(self, models: int) -> Stack:
        """An empty stack of ``models`` copies."""
        decay = gradient_decay(self.recipe)
        return make_stack(self.model, models, self.recipe.torch_dtype, self.way, decay)

    def in_parts(self, training: Callable[[int], Result]) -> Result:
        """``training`` of one model, given how many examples of a batch pass together.

        Where they do not fit, it starts again with half as many, whose gradients are summed: a
        step that was left half done is never continued.

        Raises:
            OutOfMemoryError: not even one example fits.
        """

        def shrunk(rows: int) -> None:
            self.batch_rows = min(self.batch_rows, rows)

        rows = self.batch_rows
        return next(shrinking(lambda part: training(part.stop), rows, rows, shrunk=shrunk))

    def train(
        self,
        stack: Stack,
        order: EpochOrder,
        after_epoch: Callable[[int], None],
        together: int | None = None,
    ) -> None:
        """Train ``stack`` in place up to the recipe's last epoch.

        ``after_epoch`` is given the number of epochs done, from 0; it may raise to give up. So
        many examples of a batch pass ``together``; default all.
        """
        recipe, step = self.recipe, 0
        update = make_update(recipe, stack.theta, stack.sums)
        after_epoch(0)
        for epoch in range(recipe.last_epoch):
            rows = order(epoch).to(self.y.device)
            total = recipe.epochs * recipe.steps_per_epoch(rows.shape[1])
            for batch in recipe.batches(rows):
                again = False
                for part in batch.split(together or batch.shape[1], dim=1):
                    self._add_gradient(stack, part, part.shape[1] / batch.shape[1], again)
                    again = True
                update.step(recipe.learning_rate(step, total))
                step += 1
            after_epoch(epoch + 1)

    def _add_gradient(
        self, stack: Stack, batch: Int64[Tensor, "M B"], weight: float, again: bool
    ) -> None:
        """``weight`` times that of the batch's mean loss; ``again``: of the same step."""
        rows = batch.flatten()

        def pick(part: Tensor) -> Tensor:
            return part.index_select(0, rows).view(*batch.shape, *part.shape[1:])

        with torch.enable_grad():
            outputs = stack(each(self.x, pick))
        gradient = mean_loss_gradient(self.loss, outputs.detach(), pick(self.y))
        stack.backward(outputs, gradient if weight == 1 else weight * gradient, again)

    @torch.no_grad()
    def query_outputs(self, stack: Stack) -> Float[Tensor, "M Q C"]:
        """f(x_q) of every model in the stack."""

        def some(rows: slice) -> Tensor:
            x = take(self.query_x, rows)
            return stack(each(x, lambda part: part.expand(stack.models, *part.shape))).detach()

        return torch.cat(list(shrinking(some, rows_in(self.query_x), self.query_rows)), dim=1)


def mean_loss_gradient(loss: Loss, f: Float[Tensor, "M B C"], y: Tensor) -> Float[Tensor, "M B C"]:
    """∂/∂f of the batch means (1/B) Σ_b ℓ(f_mb, y_mb) of every model."""
    models, batch, outputs = f.shape
    own, labels, weights = loss, y, None
    if isinstance(loss, Weighted):
        own, (labels, weights) = loss.loss, loss.split(y)
    if type(own) is CrossEntropy and own.one_hot_targets and labels.ndim == 2:
        # closed form w (softmax(f) − onehot(y)) / B, along the storage order of f; an ignored
        # label weighs nothing, and need not be an index
        scale = (labels != own.ignore_index).to(f.dtype).mul_(1.0 / batch)[:, None]
        if weights is not None:
            scale.mul_(weights[:, None])
        gradient = torch.softmax(f.mT, dim=1).mul_(scale)
        gradient.scatter_add_(1, labels.clamp(0, outputs - 1)[:, None], -scale)
        return gradient.mT
    leaf = f.reshape(models * batch, outputs).requires_grad_()
    with torch.enable_grad():
        total = loss.per_example(leaf, y.flatten(0, 1)).sum() / batch
    return torch.autograd.grad(total, leaf)[0].view_as(f)


class Update(ABC):
    """One optimiser with its state for one flat buffer; the conventions are ``torch.optim``'s.

    Every update acts on single parameters, so the parameters of many models are one vector here.
    ``sums`` is what the backward pass leaves: decay·sums + ∂ℓ/∂θ.
    """

    @abstractmethod
    def step(self, lr: float) -> None:
        """Move the parameters in place."""


class SGD(Update):
    """v ← μ v + g + w θ;  θ ← θ − lr v, as ``torch.optim.SGD``; v is ``sums``."""

    def __init__(self, recipe: Recipe, theta: Tensor, sums: Tensor) -> None:
        """Start from v = 0."""
        self.weight_decay = recipe.weight_decay
        self.theta, self.velocity = theta, sums.zero_()

    def step(self, lr: float) -> None:
        """One step; the backward pass has already formed μ v + g."""
        if self.weight_decay:
            self.velocity.add_(self.theta, alpha=self.weight_decay)
        self.theta.add_(self.velocity, alpha=-lr)


class Adam(Update):
    """``torch.optim.Adam`` (L2 penalty) or ``AdamW`` (decoupled decay) in their fused form."""

    def __init__(self, recipe: Recipe, theta: Tensor, sums: Tensor) -> None:
        """Take ``sums`` for the gradient, and allocate both moments at the first step."""
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        theta.grad = sums.zero_()
        self.optimizer = kind(
            [theta],
            lr=recipe.lr,
            betas=recipe.betas,
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, lr: float) -> None:
        """One step; the plain gradient is in ``sums``."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()


def make_update(recipe: Recipe, theta: Float[Tensor, " n"], sums: Float[Tensor, " n"]) -> Update:
    """The recipe's optimiser for the parameters ``theta``."""
    return (SGD if recipe.optimizer == "sgd" else Adam)(recipe, theta, sums)


def gradient_decay(recipe: Recipe) -> float:
    """Factor by which the backward pass multiplies ``sums`` before it adds the gradient."""
    return recipe.momentum if recipe.optimizer == "sgd" else 0.0


def numbers_per_example(model: nn.Module, rows: Inputs) -> int:
    """Numbers that a forward pass saves for its backward pass, for one example.

    Parameters and buffers are left out.
    """
    reference = copy.deepcopy(model).double().eval()
    own = {t.untyped_storage().data_ptr() for t in (*reference.parameters(), *reference.buffers())}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        where = tensor.untyped_storage().data_ptr()
        if where not in own:
            saved[where] = max(saved.get(where, 0), tensor.numel())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        outputs = apply(reference, double(take(rows, slice(0, COUNTED_ROWS))))
    return (sum(saved.values()) + outputs.numel()) // len(outputs)


class Cancelled(Exception):
    """Another job has failed or the user has interrupted; this one gives up."""


def in_parallel(
    work: Callable[[Job, Callable[[], None]], None],
    jobs: Sequence[Job],
    done: Callable[[Job], object],
    most: int | None = None,
) -> None:
    """Run ``work(job, check)`` for all jobs on ``torch.get_num_threads()`` threads, or ``most``.

    A stack's products are too small to share between threads, and single-threaded ones give the
    same bits whatever the number of cores. Torch releases the interpreter lock in every operation.
    ``check()`` raises Cancelled once any job has failed or the user has interrupted; ``done`` is
    called in the calling thread after each job. The first error is raised again here.
    """
    if not jobs:
        return
    threads, stop = torch.get_num_threads(), threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Cancelled

    count = min(threads, len(jobs), most or threads)
    pool = ThreadPoolExecutor(count, "retraining", torch.set_num_threads, (1,))
    futures = {pool.submit(work, job, check): job for job in jobs}
    try:
        for future in as_completed(futures):
            future.result()
            done(futures.pop(future))
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # the setting is partly per process
