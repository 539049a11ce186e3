"""How long a bank takes here, before it is trained: a few steps, timed on every core at once.

What a step costs hardly depends on the data: the first examples, in stacks as large as those of
the bank, stand for all. Evaluation on the queries is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from pathlib import Path

import torch

from decomposition.problem import Problem
from decomposition.retraining.bank import BankTraining, default_chunk_size
from decomposition.retraining.initial import present_parameters
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.trainer import BatchedTrainer, in_parallel

STEPS = 4
"""Timed steps, the first of which only warms up."""
ROWS = 256
"""Examples of a timed step, at most: a larger batch takes proportionally longer."""
ENOUGH = 5.0
"""Seconds after which no further step is timed."""


@dataclass(frozen=True)
class RetrainingCost:
    """What is left of a bank to be trained."""

    models: int
    """Trainings that are not in the bank's folder yet."""
    step: float
    """Seconds that one step of one model takes, stacked and side by side as they will be."""
    steps: int
    """Steps that one model is trained for."""
    seconds: float
    """All of it."""

    @property
    def hours(self) -> float:
        """All of it."""
        return self.seconds / 3600.0


def retraining_cost(problem: Problem, plan: BankPlan, folder: Path | None = None) -> RetrainingCost:
    """Time a few steps and count what a bank's folder does not hold yet.

    Args:
        problem: trained or not; of one that is not, nothing counts as done.
        plan: of the bank.
        folder: of the bank.

    Raises:
        ProblemError: the plan does not fit the problem.
        UnsupportedModelError: the model cannot be stacked.
        StoreError: the folder cannot be used.
    """
    kept = plan.kept(problem.num_examples)
    steps = problem.recipe.last_epoch * problem.recipe.steps_per_epoch(kept)
    trainer = BatchedTrainer(problem)
    size = default_chunk_size(problem.num_parameters, trainer.activations)
    left = _left(problem, plan, folder, size)
    if not left or not steps:
        return RetrainingCost(sum(left), 0.0, steps, 0.0)
    workers = 1 if problem.device.type != "cpu" else torch.get_num_threads()
    workers = min(workers, len(left))
    stack = max(left)
    seconds = _seconds_per_step(trainer, problem, stack, kept, workers)
    rounds = ceil(len(left) / workers)
    return RetrainingCost(sum(left), seconds / stack / workers, steps, seconds * steps * rounds)


def _left(problem: Problem, plan: BankPlan, folder: Path | None, size: int) -> list[int]:
    """Models of every chunk that is still to be trained."""
    if folder is not None and folder.is_dir() and problem.initial is not None:
        training = BankTraining(problem, plan, folder)
        return [chunk.models for chunk in training.chunks if training.read(chunk) is None]
    counts = [plan.masks] * plan.repeats + [plan.second_masks]
    return [min(size, n - start) for n in counts for start in range(0, n, size)]


def _seconds_per_step(
    trainer: BatchedTrainer, problem: Problem, models: int, kept: int, workers: int
) -> float:
    """Of a stack of ``models`` on every worker at once."""
    batch = min(problem.recipe.batch_size, kept)
    rows = min(batch, ROWS)
    recipe = trainer.recipe
    trainer.recipe = replace(  # here and not in the problem, whose stacks would be others
        recipe, epochs=max(STEPS, recipe.epochs), checkpoint=STEPS, batch_size=rows
    )
    found: list[float] = []

    def work(_: int, check: Callable[[], None]) -> None:
        stack = trainer.stack(models)
        start = present_parameters(problem.model)
        for row in range(models):
            stack.load(row, start)
        order = torch.arange(rows).expand(models, rows)  # one batch an epoch
        marks: list[float] = []

        def after_epoch(done: int) -> None:
            check()
            if problem.device.type == "cuda":
                torch.cuda.synchronize(problem.device)
            marks.append(time.perf_counter())
            if done > 1 and marks[-1] - marks[0] > ENOUGH:
                raise _EnoughError

        with suppress(_EnoughError):
            trainer.train(stack, lambda _: order, after_epoch)
        steps = [after - before for before, after in pairwise(marks)]
        found.append(min(steps[1:] or steps))

    in_parallel(work, list(range(workers)), lambda _: None, workers)
    return max(found) * batch / rows


class _EnoughError(Exception):
    """Enough steps have been timed."""
