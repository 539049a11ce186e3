"""How long a study will take and how much memory it needs, before it starts.

Rates are measured on this machine in a few seconds, on every core at once, because that is how a
study runs: one epoch of every architecture's stack, an eigendecomposition and a matrix product,
each on one thread. What a cell needs of them follows from its size: O(P³) for the
eigendecompositions of H, G and their blocks, O(N P²) for assembling them, and the ranks of
masks × queries for the levels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from decomposition.chain.cost import Rates, predicted_seconds
from decomposition.chain.plan import Plan, plan_chain
from decomposition.linalg import eigh, matmul
from decomposition.resources import bytes_of, cores
from decomposition.retraining.bank import BankTraining
from decomposition.study.cell import Cell
from decomposition.study.tasks import training_of, trainings, untrained

EIGH_SIZE, GEMM_SIZE = 1200, 1500
MEASURED_EPOCHS = 2
FIXED_SECONDS = 8.0
"""Imports, data, per-example gradients: what no size explains."""
RANKED_PER_SECOND = 9.0e6
"""Masks × queries × predictions that are ranked and linearised in a second."""
PREDICTIONS = 28
"""Ranked predictions per rung: dampings × protocols, fewer where protocols agree."""
RUNGS, LADDER_RUNGS = 9, 16
ASSEMBLY_PRODUCTS = 14.0
"""Assembling H, G and their diagonals, and rotating gradients, in units of N P² multiply-adds."""
BASE_MODEL_FACTOR = 25.0
"""One model alone on all examples, against a model's part of a full stack on half of them."""
DENSE_COPIES, LADDER_COPIES = 9.5, 11.5
"""P × P matrices alive at once: measured peaks."""
PROCESS = 700 << 20
"""Bytes of a process that has done nothing yet."""


@dataclass(frozen=True)
class Speed:
    """Measured rates of one thread while the other cores do the same."""

    eigh: float
    """Seconds per n³ of a symmetric eigendecomposition."""
    product: float
    """Seconds per multiply-add of a float64 matrix product."""
    training: dict[Cell, float]
    """Seconds per model and epoch of every training."""

    @staticmethod
    def measure(cells: Sequence[Cell]) -> Speed:
        """Take a few seconds to measure."""
        generator = torch.Generator().manual_seed(0)
        square = torch.randn(GEMM_SIZE, GEMM_SIZE, generator=generator, dtype=torch.float64)
        symmetric = square[:EIGH_SIZE, :EIGH_SIZE] @ square[:EIGH_SIZE, :EIGH_SIZE].T
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with threadpool_limits(1):
                return Speed(
                    _side_by_side(lambda: _seconds(lambda: eigh(symmetric))) / EIGH_SIZE**3,
                    _side_by_side(lambda: _seconds(lambda: matmul(square, square))) / GEMM_SIZE**3,
                    {cell: _side_by_side(_stack(cell)) for cell in trainings(cells, every=True)},
                )
        finally:
            torch.set_num_threads(threads)

    def training_seconds(self, training: Cell) -> float:
        """Seconds of one model of a training up to its last checkpoint."""
        return self.training[training] * training.training.last_epoch

    def cell_seconds(self, cell: Cell) -> float:
        """Seconds of one cell on one thread, its bank being there."""
        problem, settings = untrained(cell), cell.settings
        plan = plan_of(cell)
        if not plan.dense:
            rates = Rates.measure(problem)
            solved = predicted_seconds(problem, plan, rates, settings.damping_points)
            return FIXED_SECONDS + self._own_training(cell) + sum(solved.values())
        size, rungs = problem.num_parameters, LADDER_RUNGS if cell.ladder else RUNGS
        blocks = sum(block.size**3 for block in problem.blocks)
        eigen = 2.0 * (size**3 + blocks) + (blocks if cell.ladder else 0.0)
        products = (
            ASSEMBLY_PRODUCTS * problem.num_examples * size**2
            + rungs * settings.damping_points * settings.masks * size * problem.num_queries
            + rungs * settings.masks * problem.num_examples * size
        )
        ranks = PREDICTIONS * rungs * settings.masks * problem.num_queries / RANKED_PER_SECOND
        return (
            FIXED_SECONDS
            + self._own_training(cell)
            + self.eigh * eigen
            + self.product * products
            + ranks
        )

    def _own_training(self, cell: Cell) -> float:
        """Seconds of the base model and, for single removals, of a bank that no other cell has."""
        rates = {training_of(other): rate for other, rate in self.training.items()}
        rate = rates[training_of(cell)] * cell.training.last_epoch
        if cell.settings.target != "leave_one_out":
            return BASE_MODEL_FACTOR * rate
        plan = cell.settings.plan
        models = cell.settings.leave_one_out_examples * plan.repeats + plan.second_masks
        return rate * (BASE_MODEL_FACTOR + models / plan.alpha)  # they keep all examples but one


def cell_memory(cell: Cell) -> int:
    """Peak bytes of the process that computes a cell."""
    problem, settings = untrained(cell), cell.settings
    rungs = LADDER_RUNGS if cell.ladder else RUNGS
    predictions = 4 * rungs * settings.damping_points * settings.masks * problem.num_queries
    plan = plan_of(cell)
    if not plan.dense:
        return PROCESS + max(one.memory for one in plan.choices.values()) + 2 * predictions
    gradients = 4 * rungs * problem.num_parameters * (problem.num_examples + problem.num_queries)
    copies = LADDER_COPIES if cell.ladder else DENSE_COPIES
    return PROCESS + int(copies * 8 * problem.num_parameters**2) + gradients + 2 * predictions


def plan_of(cell: Cell) -> Plan:
    """The forms of a cell's rungs, which are the same on every machine."""
    return plan_chain(untrained(cell), bytes_of(cell.memory))


def _side_by_side(make: Callable[[], float]) -> float:
    """Mean of what ``make`` measures on every core at once."""
    count = cores()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return float(np.mean(list(pool.map(lambda _: make(), range(count)))))


def _seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of one call."""
    marks = [time.perf_counter()]
    for _ in range(repeats):
        work()
        marks.append(time.perf_counter())
    return float(np.median(np.diff(marks)))


def _stack(training: Cell) -> Callable[[], float]:
    """Seconds per model and epoch of one full chunk of a training."""
    own = training.training
    recipe = replace(own, epochs=max(MEASURED_EPOCHS, own.epochs))
    problem = replace(untrained(training), recipe=replace(recipe, checkpoint=MEASURED_EPOCHS))
    bank = BankTraining(problem, training.settings.plan, None)
    chunk = bank.chunks[0]

    def measure() -> float:
        marks: list[float] = []

        def after_epoch() -> None:
            marks.append(time.perf_counter())

        bank.trainer.outputs(chunk, (), after_epoch)
        return float(np.min(np.diff(marks))) / chunk.models

    return measure
