"""How long a study will take and how much memory it needs, before it starts.

Rates are measured on this machine in a few seconds: one epoch of every architecture's stack, one
eigendecomposition and one matrix product, each on one thread. What a cell needs of each follows
from its size: O(P³) for the eigendecompositions of H, G and their blocks, O(N P²) for assembling
them, and the ranks of masks × queries for the levels. Processes that share a machine's memory bus
slow each other down; the eigendecompositions, which are bound by it, most.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from decomposition.linalg import eigh, matmul
from decomposition.retraining.batched import BatchedTrainer
from decomposition.retraining.cells import Chunk
from decomposition.retraining.training import BankTraining
from decomposition.study.cell import Cell
from decomposition.study.tasks import trainings, untrained

EIGH_SIZE, GEMM_SIZE = 1200, 1500
FIXED_SECONDS = 8.0
"""Imports, data, training of the base model's first epochs, everything that no size explains."""
RANKED_PER_SECOND = 9.0e6
"""Masks × queries × predictions that are ranked and linearised in a second."""
PREDICTIONS = 450
"""Node-damping pairs of one cell."""
ASSEMBLY_GEMMS = 14.0
"""Assembling H, G, their diagonals and rotating gradients, in units of N P² multiply-adds."""
SHARED_BUS = 1.25
"""How much longer an eigendecomposition takes beside others."""
DENSE_COPIES = 9.5
"""P × P matrices alive at once: measured peaks are 9 to 10."""
PROCESS = 700 << 20
"""Bytes of a process that has done nothing yet."""


@dataclass(frozen=True)
class Speed:
    """Measured rates of this machine on one thread."""

    eigh: float
    """Seconds per n³ of a symmetric eigendecomposition."""
    gemm: float
    """Seconds per multiply-add of a float64 matrix product."""
    training: dict[Cell, float]
    """Seconds per model and epoch of every training."""

    @staticmethod
    def measure(cells: Sequence[Cell]) -> Speed:
        """Take a few seconds to measure."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            generator = torch.Generator().manual_seed(0)
            square = torch.randn(GEMM_SIZE, GEMM_SIZE, generator=generator, dtype=torch.float64)
            symmetric = square[:EIGH_SIZE, :EIGH_SIZE] @ square[:EIGH_SIZE, :EIGH_SIZE].T
            return Speed(
                _best(lambda: eigh(symmetric)) / EIGH_SIZE**3,
                _best(lambda: matmul(square, square)) / GEMM_SIZE**3,
                {cell: _training_rate(cell) for cell in trainings(list(cells))},
            )
        finally:
            torch.set_num_threads(threads)

    def training_seconds(self, cell: Cell) -> float:
        """Seconds of one model of a training up to its last checkpoint."""
        return self.training[cell] * cell.recipe.last_epoch

    def cell_seconds(self, cell: Cell) -> float:
        """Seconds of one cell on one thread, its bank being there."""
        problem = untrained(cell)
        size, examples, settings = problem.parameters, problem.examples, cell.settings
        eigen = 2.0 * (size**3 + sum(block.size**3 for block in problem.blocks))
        masks = settings.masks
        products = (
            ASSEMBLY_GEMMS * examples * size**2
            + 13 * 9 * masks * size * problem.queries
            + 9 * masks * examples * size
        )
        ranks = PREDICTIONS * masks * problem.queries / RANKED_PER_SECOND
        base = self.training_rate(cell) * cell.recipe.last_epoch * BASE_MODEL_FACTOR
        return FIXED_SECONDS + base + SHARED_BUS * self.eigh * eigen + self.gemm * products + ranks

    def training_rate(self, cell: Cell) -> float:
        """Seconds per model and epoch of the training that a cell belongs to."""
        for other, rate in self.training.items():
            if (other.variant, other.dataset) == (cell.variant, cell.dataset):
                return rate
        return 0.0

    @staticmethod
    def cell_memory(cell: Cell) -> int:
        """Peak bytes of the process that computes a cell."""
        problem = untrained(cell)
        settings = cell.settings
        predictions = 4 * 9 * settings.damping_points * settings.masks * problem.queries
        gradients = 12 * problem.parameters * (problem.examples + problem.queries)
        dense = int(DENSE_COPIES * 8 * problem.parameters**2)
        return PROCESS + dense + 4 * gradients + 2 * predictions


BASE_MODEL_FACTOR = 25.0
"""A stack of one model, on all examples, against a model's part of a full stack on half of them."""


def _best(work, repeats: int = 3) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(once() for _ in range(repeats))


def _training_rate(cell: Cell) -> float:
    """Seconds per model and epoch of a full chunk, from its second epoch on."""
    problem = untrained(cell)
    training = BankTraining(problem, cell.settings.plan, None)
    chunk: Chunk = training.chunks[0]
    trainer = BatchedTrainer(problem)
    stack = trainer.stack(chunk.models)
    for row, mask in enumerate(range(chunk.start, chunk.stop)):
        start = training.trainer.start(mask, chunk.repeat)
        stack.load(row, {name: value[None] for name, value in start.items()})
    marks: list[float] = []

    def after_epoch(done: int) -> None:
        marks.append(time.perf_counter())
        if done == MEASURED_EPOCHS:
            raise _Enough

    with contextlib.suppress(_Enough):
        trainer.train(stack, lambda epoch: training.trainer.order(chunk, epoch), after_epoch)
    epochs = np.diff(marks)
    return float(np.min(epochs)) / chunk.models if len(epochs) else 0.0


MEASURED_EPOCHS = 3


class _Enough(Exception):
    pass
