"""The base model: the batched trainer with one model and all examples."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from tqdm import tqdm

from decomposition.curvature.derivatives import check_gradients
from decomposition.errors import ProblemError
from decomposition.inputs import wide
from decomposition.problem import Problem
from decomposition.retraining import seeds
from decomposition.retraining.initial import independent_start, present_parameters
from decomposition.retraining.trainer import BatchedTrainer, in_parallel

BASE_CELL = 2**31 - 1
"""Stands in for a mask number, so that no base model shares its seed with a retrained one."""


def train_base_model(
    problem: Problem,
    progress: bool = False,
    checkpoint: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """A copy of ``problem.model`` trained by the recipe on all examples, in the recipe's precision.

    Frozen parameters and buffers keep their values.
    Epoch e follows ``seeds.epoch_order(recipe.seed, 0, e, N)``, the order that a bank with shared
    randomness follows too. ``checkpoint`` is given the number of epochs done and a copy of the
    model, after every epoch; from the first again if memory runs out on the way.

    Raises:
        OutOfMemoryError: one model and one example do not fit.
        ProblemError: no recipe was given, or a parameter is not finite at the end.
        UnsupportedModelError: a gradient is not finite at the start.
    """
    if not problem.recipe.stated:
        raise ProblemError(
            f"{problem.name}: is its model an initialisation or a checkpoint? Give "
            "Problem(recipe=Recipe(lr=…, epochs=…)) to have a copy of it trained like that, or "
            "Problem(trained=True) to study it with the parameters that it has; initial=… in place "
            "of trained=True says from which parameters its training started"
        )
    check_gradients(problem)
    trainer = BatchedTrainer(problem)
    recipe = problem.recipe
    stack = trainer.stack(1)

    def order(epoch: int) -> torch.Tensor:
        return torch.from_numpy(seeds.epoch_order(recipe.seed, 0, epoch, problem.num_examples))[
            None
        ]

    def snapshot() -> nn.Module:
        model = copy.deepcopy(problem.model).to(recipe.torch_dtype)
        with torch.no_grad():
            for name, value in stack.parameters():
                model.get_parameter(name).copy_(value[0])
        return model

    with tqdm(
        total=recipe.last_epoch, desc="base model", unit="epoch", disable=not progress
    ) as bar:

        def work(_: int, check: Callable[[], None]) -> None:
            def after_epoch(done: int) -> None:
                check()
                bar.update(min(done, 1))
                if checkpoint is not None and done:
                    checkpoint(done, snapshot())

            def training(together: int) -> None:
                bar.reset()
                stack.load(0, present_parameters(problem.model))
                stack.sums.zero_()
                trainer.train(stack, order, after_epoch, together)

            trainer.in_parts(training)

        in_parallel(work, [0], lambda _: None)
    if not torch.isfinite(stack.theta).all():
        raise ProblemError(
            f"training of the base model diverged: a parameter is not finite after "
            f"{recipe.last_epoch} epochs of {recipe.optimizer} {recipe.diverged}"
        )
    return snapshot()


def other_base(problem: Problem, number: int) -> Problem:
    """The same problem with base model ``number``: 0 is its own, others have a fresh
    initialisation (by ``reset_parameters``) and another order of examples.

    Raises:
        UnsupportedModelError: a module cannot be initialised afresh.
    """
    if number == 0:
        return problem
    seed = problem.recipe.seed
    start = independent_start(problem.model, seed, BASE_CELL, number)
    model = copy.deepcopy(problem.model)._apply(wide)
    with torch.no_grad():
        for name, value in start.items():
            model.get_parameter(name).copy_(value)
    recipe = replace(problem.recipe, seed=seeds.initial_seed(seed, BASE_CELL, number))
    return replace(problem, model=model, recipe=recipe, initial=None)
