"""Cells of a bank: the model of one mask and one repeat, trained in chunks of many.

A cell's start and order of examples depend on the problem, the plan, its mask and its repeat,
never on the chunk that it happens to be trained in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.retraining import seeds
from decomposition.retraining.audit import PlainTraining, audited_cells, check_cell
from decomposition.retraining.initial import (
    check_retrainable,
    check_trained,
    independent_start,
    present_parameters,
    shared_start,
)
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.trainer import BatchedTrainer


@dataclass(frozen=True)
class Chunk:
    """Masks ``start`` … ``stop``−1 under one repeat."""

    start: int
    """First mask."""
    stop: int
    """One past the last mask."""
    repeat: int
    """Repeat; R for the second order of the noise ceiling."""

    @property
    def models(self) -> int:
        """Number of models."""
        return self.stop - self.start


def chunks(plan: BankPlan, size: int) -> Iterator[Chunk]:
    """All chunks of a plan, the second order last."""
    blocks = [(repeat, plan.masks) for repeat in range(plan.repeats)]
    for repeat, masks in [*blocks, (plan.repeats, plan.second_masks)]:
        for start in range(0, masks, size):
            yield Chunk(start, min(start + size, masks), repeat)


class CellTrainer:
    """Trains chunks of a plan on a trained problem.

    Raises:
        ProblemError: the problem is untrained or the plan does not fit it.
    """

    def __init__(self, problem: Problem, plan: BankPlan) -> None:
        """Draw the masks and find the common start."""
        self.problem, self.plan = problem, plan
        self.masks = plan.subsets(problem.num_examples)
        self.kept = plan.kept(problem.num_examples)
        check_trained(problem)
        check_retrainable(problem, plan.randomness)
        self._shared = shared_start(problem) if plan.randomness == "shared" else {}
        self._trainer = BatchedTrainer(problem)
        self._audited = audited_cells(plan)

    @property
    def activations(self) -> int:
        """As ``BatchedTrainer.activations``."""
        return self._trainer.activations

    def start(self, mask: int, repeat: int) -> dict[str, Tensor]:
        """Parameters that a cell starts from."""
        if self.plan.randomness == "shared":
            return self._shared
        return independent_start(self.problem.model, self.plan.seed, mask, repeat)

    def order(self, chunk: Chunk, epoch: int) -> Int64[Tensor, "m n"]:
        """Row i: the examples of the chunk's i-th mask in the order of this epoch."""
        masks = self.masks[chunk.start : chunk.stop]
        if self.plan.randomness == "shared":
            seed = self.problem.recipe.seed
            examples = self.problem.num_examples
            order = seeds.epoch_order(seed, chunk.repeat, epoch, examples)
            places = np.nonzero(masks[:, order])[1]
            return torch.from_numpy(order[places].reshape(chunk.models, self.kept))
        rows = np.empty((chunk.models, self.kept), np.int64)
        for row, kept, mask in zip(rows, masks, range(chunk.start, chunk.stop), strict=True):
            row[:] = seeds.cell_order(self.plan.seed, mask, chunk.repeat, epoch, kept)
        return torch.from_numpy(rows)

    def outputs(
        self, chunk: Chunk, epochs: Collection[int], check: Callable[[], None]
    ) -> dict[int, Float[np.ndarray, "m Q C"]]:
        """Train a chunk and apply it to the queries after each of ``epochs``.

        ``check`` may raise between epochs to give up.

        Raises:
            ProblemError: an output is not finite.
            OutOfMemoryError: the models do not fit together; one alone: not even with one example.
        """
        if chunk.models > 1:
            return self._trained(chunk, epochs, check)
        return self._trainer.in_parts(lambda rows: self._trained(chunk, epochs, check, rows))

    def _trained(
        self,
        chunk: Chunk,
        epochs: Collection[int],
        check: Callable[[], None],
        together: int | None = None,
    ) -> dict[int, Float[np.ndarray, "m Q C"]]:
        found: dict[int, np.ndarray] = {}
        stack = self._trainer.stack(chunk.models)
        for row, mask in enumerate(range(chunk.start, chunk.stop)):
            start = self.start(mask, chunk.repeat)
            stack.load(row, {name: value[None] for name, value in start.items()})

        def after_epoch(done: int) -> None:
            check()
            if done in epochs:
                outputs = self._trainer.query_outputs(stack).contiguous()
                found[done] = self._finite(outputs.cpu().numpy(), chunk)

        self._trainer.train(stack, lambda epoch: self.order(chunk, epoch), after_epoch, together)
        return found

    def _finite(self, outputs: np.ndarray, chunk: Chunk) -> np.ndarray:
        finite = np.isfinite(outputs).all((1, 2))
        if not finite.all():
            raise ProblemError(
                f"the model retrained on mask {chunk.start + int(np.argmin(finite))} (repeat "
                f"{chunk.repeat}) diverged {self.problem.recipe.diverged}"
            )
        return outputs

    def audit(
        self, chunk: Chunk, found: Mapping[int, Float[np.ndarray, "m Q C"]], check: Callable
    ) -> None:
        """Train the chunk's sample once more, one by one by plain torch, and compare.

        Raises:
            UnsupportedModelError: ``found`` is not what plain torch finds.
        """
        for mask in range(chunk.start, chunk.stop):
            if (mask, chunk.repeat) in self._audited:
                one = Chunk(mask, mask + 1, chunk.repeat)
                plain = PlainTraining(
                    self._trainer,
                    self.start(mask, chunk.repeat),
                    lambda epoch, one=one: self.order(one, epoch)[0],
                    check,
                )
                values = {epoch: outputs[mask - chunk.start] for epoch, outputs in found.items()}
                cell = f"the model of mask {mask} (repeat {chunk.repeat})"
                check_cell(self._trainer, plain, values, cell)

    def base_outputs(self) -> Float[np.ndarray, "Q C"]:
        """Outputs of the base model on the queries, in the training precision."""
        stack = self._trainer.stack(1)
        stack.load(0, present_parameters(self.problem.model))
        return self._trainer.query_outputs(stack)[0].contiguous().cpu().numpy()
