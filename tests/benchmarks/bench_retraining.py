"""Retraining, a model and epoch or step: `python -m tests.benchmarks.bench_retraining`.

The usual loop with a DataLoader, a tight loop, and stacks of models train the built-in MLP
64-64-32-10 in float32 with SGD 0.03, momentum 0.9, batch 32. Stacks are timed through
``retrain_bank`` itself (leave-one-out subsets, 1,616 examples an epoch), with everything that a
bank costs apart from the one-off preparation. The loops get the number of threads that suits them
better, one. Then a CNN and a transformer (``digits_cnn`` and ``chars``, quick): stacks of the
default size against the tight loop, model after model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from decomposition.problem import Problem
from decomposition.problems import digits
from decomposition.problems.bundled import digits_cnn
from decomposition.problems.chars import chars
from decomposition.retraining import BankPlan, default_chunk_size, retrain_bank
from decomposition.retraining.trainer import BatchedTrainer
from tests.benchmarks.measuring import (
    Kept,
    Row,
    in_turn,
    seconds_of_product,
    thread_counts,
    threads,
)

ROUNDS, EPOCHS, GEMM = 5, 4, 2048
NETWORKS = {"CNN": digits_cnn, "transformer": chars}


def on_one_thread(work: Callable[[Problem], None], problem: Problem) -> Callable[[], None]:
    """PyTorch's operations on one thread."""

    def alone() -> None:
        with threads(1):
            work(problem)

    return alone


def epochs(kept: Kept) -> None:
    """An epoch of one model, against both loops and the floor of its matrix products."""
    problem = digits().trained()
    problem = replace(problem, recipe=replace(problem.recipe, epochs=EPOCHS))
    idle = replace(problem, recipe=replace(problem.recipe, epochs=0))
    models = 4 * default_chunk_size(problem.num_parameters)
    products = sum(block.d_in * block.d_out for block in problem.blocks)
    for count in thread_counts():
        with threads(count):
            rate = seconds_of_product(GEMM, GEMM, GEMM, torch.float32)
            best = in_turn(
                {
                    "DataLoader loop": on_one_thread(dataloader_epoch, problem),
                    "tight loop": on_one_thread(tight_epoch, problem),
                    "idle": lambda: bank(idle, models),
                    "stacks": lambda: bank(problem, models),
                },
                ROUNDS,
            )
        spent = (best["stacks"] - best["idle"]) / models / EPOCHS
        floor = 3 * problem.num_examples * products * rate
        for loop in ("DataLoader loop", "tight loop"):
            what = f"one epoch of one retrained model, against a {loop}"
            kept.add(Row(what, "digits", count, spent, best[loop], floor))


def steps(name: str, problem: Problem, kept: Kept) -> None:
    """A step of one model, in a stack and in a loop."""
    problem = replace(problem, recipe=replace(problem.recipe, epochs=1))
    idle = replace(problem, recipe=replace(problem.recipe, epochs=0))
    size = default_chunk_size(problem.num_parameters, BatchedTrainer(problem).activations)
    of_epoch = problem.recipe.steps_per_epoch
    for count in thread_counts():
        with threads(count):
            best = in_turn(
                {
                    "loop": on_one_thread(tight_epoch, problem),
                    "idle": lambda: bank(idle, size),
                    "stack": lambda: bank(problem, size),
                },
                3,
            )
        spent = (best["stack"] - best["idle"]) / size / of_epoch(problem.num_examples - 1)
        loop = best["loop"] / of_epoch(problem.num_examples)
        kept.add(Row("one step of one retrained model", name, count, spent, loop))


def bank(problem: Problem, models: int) -> None:
    """Retrain ``models`` models without one example each."""
    alpha = (problem.num_examples - 1) / problem.num_examples
    plan = BankPlan(alpha=alpha, masks=models, second_order_masks=0)
    retrain_bank(problem, plan, progress=False)


def dataloader_epoch(problem: Problem) -> None:
    """One epoch of the loop of every tutorial."""
    model, recipe = copy.deepcopy(problem.model), problem.recipe
    loader = DataLoader(TensorDataset(*problem.train), recipe.batch_size, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    criterion = nn.CrossEntropyLoss()
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def tight_epoch(problem: Problem) -> None:
    """The same without a DataLoader: batches are cut from one permutation of the tensors."""
    model, recipe = copy.deepcopy(problem.model), problem.recipe
    x, y = problem.train
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    for rows in torch.randperm(problem.num_examples).split(recipe.batch_size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


def main() -> None:
    kept = Kept("retraining")
    epochs(kept)
    for name, make in NETWORKS.items():
        steps(name, make(quick=True).trained(), kept)


if __name__ == "__main__":
    main()
