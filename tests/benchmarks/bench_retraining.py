"""Time of one model-epoch on digits: usual loop, tight loop, batched; run it as a script.

All three train the built-in MLP 64-64-32-10 in float32 with SGD 0.03, momentum 0.9, batch 32.
The batched trainer is timed through ``retrain_bank`` itself (leave-one-out subsets, 1,616
examples per epoch), with everything that a bank costs apart from the one-off preparation. The
loops get the number of threads that suits them better, one. Rounds are interleaved and minima
taken, so that a disturbance does not fall on one side only. Beside the wall-clock time stands the
processor time of all threads: on a busy machine it is the one to compare.

Then a CNN and a transformer (``digits_cnn`` and ``chars``, quick, or whole with the argument
``full``), per model and step: stacks of the default size against the loop, model after model.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from decomposition.problem import Problem
from decomposition.problems import digits
from decomposition.problems.bundled import digits_cnn
from decomposition.problems.chars import chars
from decomposition.retraining import BankPlan, default_chunk_size, retrain_bank
from decomposition.retraining.trainer import BatchedTrainer

ROUNDS, EPOCHS, GEMM = 9, 4, 2048
FEWER_ROUNDS, STACKS = 3, 1
NETWORKS = {"CNN": digits_cnn, "transformer": chars}

Times = np.ndarray


def main() -> None:
    """Print the table."""
    problem = digits().trained()
    problem = replace(problem, recipe=replace(problem.recipe, epochs=EPOCHS))
    models = 4 * default_chunk_size(problem.num_parameters)
    idle = replace(problem, recipe=replace(problem.recipe, epochs=0))
    best: dict[str, Times] = {}

    def record(name: str, times: Times) -> None:
        best[name] = np.minimum(best.get(name, np.inf), times)

    a = torch.randn(GEMM, GEMM)
    for _ in range(ROUNDS):
        record("gemm", seconds(lambda: a @ a))
        record("DataLoader loop", on_one_thread(lambda: dataloader_epoch(problem)))
        record("tight loop", on_one_thread(lambda: tight_epoch(problem)))
        preparation = seconds(lambda: bank(idle, models))
        record("batched", (seconds(lambda: bank(problem, models)) - preparation) / models / EPOCHS)
    rate = 2 * GEMM**3 / best.pop("gemm")[0]
    products = sum(block.d_in * block.d_out for block in problem.blocks)
    floor = 3 * 2 * problem.num_examples * products / rate
    batched = best["batched"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, stacks of {models // 4}")
    print(f"{'per model and epoch':20}{'wall ms':>10}{'ratio':>8}{'processor ms':>14}{'ratio':>8}")
    for name, times in best.items():
        (wall, cpu), (wall_ratio, cpu_ratio) = 1e3 * times, times / batched
        print(f"{name:20}{wall:10.3f}{wall_ratio:8.2f}{cpu:14.3f}{cpu_ratio:8.2f}")
    print(
        f"GEMM floor {1e3 * floor:.3f} ms: multiply-adds of forward and backward pass at the rate "
        f"of one {GEMM}² float32 product ({rate / 1e9:.0f} GFLOP/s); batched is "
        f"{batched[0] / floor:.2f} times that"
    )
    print(f"{'per model and step':34}{'wall ms':>10}{'ratio':>8}{'processor ms':>14}{'ratio':>8}")
    for name, make in NETWORKS.items():
        network(name, make(quick="full" not in sys.argv[1:]).trained())


def network(name: str, problem: Problem) -> None:
    """Two rows: a loop over models, and stacks."""
    problem = replace(problem, recipe=replace(problem.recipe, epochs=1))
    idle = replace(problem, recipe=replace(problem.recipe, epochs=0))
    trainer = BatchedTrainer(problem)
    size = default_chunk_size(problem.num_parameters, trainer.activations)
    steps = problem.recipe.steps_per_epoch(problem.num_examples - 1)
    loop = stacked = np.full(2, np.inf)
    for _ in range(FEWER_ROUNDS):
        spent = on_one_thread(lambda: tight_epoch(problem))
        loop = np.minimum(loop, spent / problem.recipe.steps_per_epoch(problem.num_examples))
        preparation = seconds(lambda: bank(idle, STACKS * size))
        spent = seconds(lambda: bank(problem, STACKS * size)) - preparation
        stacked = np.minimum(stacked, spent / (STACKS * size * steps))
    rows = {f"{name} (P = {problem.num_parameters:,}), loop": loop, f"  stacks of {size}": stacked}
    for label, times in rows.items():
        (wall, cpu), (wall_ratio, cpu_ratio) = 1e3 * times, times / stacked
        print(f"{label:34}{wall:10.3f}{wall_ratio:8.2f}{cpu:14.3f}{cpu_ratio:8.2f}")


def seconds(work: Callable[[], object]) -> Times:
    """Wall-clock and processor time of one call."""
    start = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - start


def on_one_thread(work: Callable[[], object]) -> Times:
    """Times of one call with single-threaded torch operations."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return seconds(work)
    finally:
        torch.set_num_threads(threads)


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


if __name__ == "__main__":
    main()
