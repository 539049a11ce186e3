"""Is a retrained model the one that plain torch trains? A few of a bank are trained once more.

One module, ``torch.autograd`` and ``torch.optim``, with the cell's start, subset and order of
examples: nothing of a stack. Both round, and training may amplify what they round, so that no
fixed bound on the difference is right. What is allowed is

    √ε of what training changes, or ten times what plain training does to rounding itself,

with ε that of the recipe's precision. The latter is measured, where the former is exceeded, on a
twin whose parameters are jittered by a few ε at every step. Measured in float32, after whole
trainings, in parts of what training changes (√ε = 3.5e-4): a stack and plain torch differ by 2e-7
on ``digits``, 3e-7 on ``digits_cnn``, 1e-7 on ``chars``; the twin by 5e-6, 4e-6, 1e-6.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, arguments, each, outputs_of, rows_in, take
from decomposition.retraining import seeds
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.stacks import trainable_parameters
from decomposition.retraining.trainer import BatchedTrainer
from decomposition.retraining.trial import difference

ONE_IN, MOST = 100, 3
JITTER, AMPLIFIED = 4.0, 10.0
EXPLAINED_BATCHES = 32


def audited_cells(plan: BankPlan) -> set[tuple[int, int]]:
    """(mask, repeat) of one cell in a hundred, three at most, drawn by the plan's seed."""
    cells = [(mask, repeat) for repeat in range(plan.repeats) for mask in range(plan.masks)]
    cells += [(mask, plan.repeats) for mask in range(plan.second_masks)]
    count = min(MOST, -(-len(cells) // ONE_IN))
    picks = seeds.permutation(plan.seed, seeds.AUDIT, size=len(cells))[:count]
    return {cells[pick] for pick in picks}


class PlainTraining:
    """One model of a problem, trained as torch trains it."""

    def __init__(
        self,
        trainer: BatchedTrainer,
        start: Mapping[str, Tensor],
        order: Callable[[int], Tensor],
        check: Callable[[], None],
    ) -> None:
        """``order`` gives the examples of an epoch; ``check`` may raise between epochs."""
        self.trainer, self.start, self.order, self.check = trainer, start, order, check

    def outputs(self, epochs: set[int], jitter: float = 0.0) -> dict[int, Tensor]:
        """Outputs on the queries before training (0) and after each of ``epochs``.

        ``jitter``: the relative size of a change of every parameter at every step.
        """
        recipe, x, y = self.trainer.recipe, self.trainer.x, self.trainer.y
        model = copy.deepcopy(self.trainer.model).to(recipe.torch_dtype).eval()
        parameters = trainable_parameters(model)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self.start[name])
        generator = torch.Generator().manual_seed(0)
        optimizer, step = self._optimizer(list(parameters.values())), 0
        found = {0: self._answers(model)}
        for epoch in range(recipe.last_epoch):
            self.check()
            rows = self.order(epoch).to(y.device)
            total = recipe.epochs * recipe.steps_per_epoch(len(rows))
            for batch in recipe.batches(rows):
                optimizer.param_groups[0]["lr"] = recipe.learning_rate(step, total)
                optimizer.zero_grad()
                for part in batch.split(self.trainer.batch_rows):
                    f = _call(model, take(x, part))
                    (self.trainer.loss.per_example(f, y[part]).sum() / len(batch)).backward()
                for parameter in parameters.values():
                    if parameter.grad is None:  # as a parameter that has no effect here
                        parameter.grad = torch.zeros_like(parameter)
                    elif parameter.grad.is_sparse:
                        parameter.grad = parameter.grad.to_dense()
                optimizer.step()
                step += 1
                if jitter:
                    _jitter(list(parameters.values()), jitter, generator)
            if epoch + 1 in epochs:
                found[epoch + 1] = self._answers(model)
        return found

    def _optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        recipe = self.trainer.recipe
        decay = recipe.weight_decay
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=decay
            )
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        return kind(
            parameters, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=decay
        )

    def _answers(self, model: torch.nn.Module) -> Tensor:
        x, size = self.trainer.query_x, self.trainer.query_rows
        parts = range(0, rows_in(x), size)
        return torch.cat([_call(model, take(x, slice(n, n + size))).detach() for n in parts])


def check_cell(
    trainer: BatchedTrainer, plain: PlainTraining, stacked: Mapping[int, np.ndarray], cell: str
) -> None:
    """Raise unless a cell's outputs (Q, C) after each epoch are those of plain torch.

    Raises:
        UnsupportedModelError: they are not; the message names the module where it begins.
    """
    epochs = set(stacked)
    once = plain.outputs(epochs)
    epsilon = torch.finfo(trainer.recipe.torch_dtype).eps
    twin: dict[int, Tensor] = {}
    for epoch, values in sorted(stacked.items()):
        f, start = once[epoch], once[0]
        found = torch.from_numpy(values).to(f)
        change = float((f - start).norm())
        off = float((found - f).norm())
        if off <= epsilon**0.5 * change + 100 * epsilon * float(f.norm()):
            continue
        twin = twin or plain.outputs(epochs, JITTER * epsilon)
        rounding = float((twin[epoch] - f).norm())
        if not off > AMPLIFIED * rounding:  # so too where plain training diverges
            continue
        raise UnsupportedModelError(
            f"{type(trainer.model).__name__} is not trained rightly many at once: {cell} differs "
            f"from the same model trained alone by plain torch, after {epoch} epochs by "
            f"{off / max(change, 1e-300):.1g} of what training changes in its outputs, where "
            f"rounding explains {rounding / max(change, 1e-300):.1g}; {_where(trainer)}. Write "
            "that operation out in others, or retrain the models yourself and give their outputs "
            "as a bank (docs/supplied_bank.md)"
        )


def _where(trainer: BatchedTrainer) -> str:
    """The first batch of the training examples on which a stack and its copies differ."""
    rows = trainer.recipe.batches(torch.arange(rows_in(trainer.x)))
    for batch in rows[:EXPLAINED_BATCHES]:
        reason = difference(trainer.model, trainer.way, take(trainer.x, batch))
        if reason is not None:
            return f"on examples {int(batch[0])} to {int(batch[-1])} {reason}"
    return "at the start of training no module differs on the first batches"


def _call(model: torch.nn.Module, x: Inputs) -> Tensor:
    """The model as torch runs it: not in our elementary operations."""
    positional, named = arguments(each(x, torch.clone))
    with torch.enable_grad():  # without gradients torch takes other paths
        return outputs_of(model(*positional, **named)).flatten(1)


@torch.no_grad()
def _jitter(parameters: list[Tensor], relative: float, generator: torch.Generator) -> None:
    sizes = [parameter.numel() for parameter in parameters]
    noise = torch.rand(sum(sizes), generator=generator, dtype=torch.float64).mul_(2).sub_(1)
    factors = noise.mul_(relative).add_(1).to(parameters[0]).split(sizes)
    for parameter, factor in zip(parameters, factors, strict=True):
        parameter.mul_(factor.view_as(parameter))
