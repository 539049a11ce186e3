"""The bank: what models retrained without some examples answer to the queries.

Shapes: M masks, R repeats, N training examples, Q queries, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.retraining.cells import CellTrainer, Chunk, chunks
from decomposition.retraining.fingerprint import chunk_key, study_fingerprint
from decomposition.retraining.measures import Measure, measure
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.store import ChunkStore
from decomposition.retraining.workers import in_parallel

__all__ = ["Bank", "BankPlan", "retrain_bank"]

PARAMETERS_PER_STACK = 350_000
LARGEST_STACK = 500


@dataclass(frozen=True, eq=False)
class Bank:
    """Outputs of the retrained models; every later question is answered from these."""

    plan: BankPlan
    """What was trained."""
    masks: Bool[np.ndarray, "M N"]
    """True marks an example that the model was trained on."""
    outputs: Float[np.ndarray, "M R Q C"]
    """Raw model outputs f(x_q), in the training precision."""
    second_outputs: Float[np.ndarray, "M2 Q C"] | None
    """The first M₂ masks under other randomness (repeat R); None where R ≥ 2."""
    base_outputs: Float[np.ndarray, "Q C"]
    """Outputs of the base model."""

    def measurements(
        self, problem: Problem, function: Measure = "loss"
    ) -> Float[np.ndarray, "M R Q"]:
        """The measured loss or margin (see ``measure``) of every retrained model, in float64."""
        return measure(problem, self.outputs, function)

    def second_measurements(
        self, problem: Problem, function: Measure = "loss"
    ) -> Float[np.ndarray, "M2 Q"] | None:
        """The same for ``second_outputs``."""
        if self.second_outputs is None:
            return None
        return measure(problem, self.second_outputs, function)

    def base_measurements(
        self, problem: Problem, function: Measure = "loss"
    ) -> Float[np.ndarray, " Q"]:
        """The same for the base model."""
        return measure(problem, self.base_outputs, function)


def retrain_bank(
    problem: Problem,
    plan: BankPlan | None = None,
    folder: Path | None = None,
    chunk_size: int | None = None,
    progress: bool = True,
) -> Bank:
    """Retrain the model on every subset of the plan, or read from ``folder`` what is there.

    Args:
        problem: a trained problem, see ``Problem.trained``.
        plan: what to train; default 1,000 half-subsets.
        folder: where finished chunks are kept; None keeps nothing. Killed at any time, the same
            call resumes and returns the same bits. Several processes may share a folder.
        chunk_size: models trained in one stack; default ``default_chunk_size``.
        progress: show a progress bar.

    Raises:
        ProblemError: the problem is untrained, the plan does not fit it, or a model diverged.
        UnsupportedModelError: the model cannot be stacked or initialised afresh.
        StoreError: the folder cannot be used.
    """
    plan = plan or BankPlan()
    if chunk_size is None:
        chunk_size = default_chunk_size(problem.parameters)
    if chunk_size < 1:
        raise ProblemError(f"chunk_size must be at least 1, got {chunk_size}")
    trainer = CellTrainer(problem, plan)
    store = ChunkStore(folder)
    study = study_fingerprint(problem, plan, trainer.start(0, 0))
    results: dict[Chunk, np.ndarray] = {}

    def key(chunk: Chunk) -> str:
        return chunk_key(study, trainer.masks[chunk.start : chunk.stop], chunk.start, chunk.repeat)

    def read(chunk: Chunk) -> bool:
        outputs = store.load(key(chunk))
        if outputs is None:
            return False
        results[chunk] = outputs
        return True

    todo = [chunk for chunk in chunks(plan, chunk_size) if not read(chunk)]
    cells = plan.masks * plan.repeats + plan.second_masks
    finished = cells - sum(chunk.models for chunk in todo)
    with tqdm(
        total=cells, initial=finished, desc="retraining", unit="model", disable=not progress
    ) as bar:

        def work(chunk: Chunk, check: Callable[[], None]) -> None:
            check()
            if not read(chunk):  # another process may have finished it by now
                results[chunk] = trainer.outputs(chunk, check)
                store.save(key(chunk), results[chunk])

        in_parallel(work, todo, lambda chunk: bar.update(chunk.models))
    return _assemble(trainer, plan, results)


def default_chunk_size(parameters: int) -> int:
    """Models per stack for ``parameters`` P of one model: about 350,000 / P.

    Small stacks spend their time between operations, large ones outside the cache. Rounded down
    to 1, 2 or 5 times a power of ten, so that round numbers of masks have common chunks and a bank
    of 1,000 finds those of 100.
    """
    limit = min(max(1, PARAMETERS_PER_STACK // parameters), LARGEST_STACK)
    return max(n * 10**k for n in (1, 2, 5) for k in range(3) if n * 10**k <= limit)


def _assemble(trainer: CellTrainer, plan: BankPlan, results: dict[Chunk, np.ndarray]) -> Bank:
    base = trainer.base_outputs()
    outputs = np.empty((plan.masks, plan.repeats, *base.shape), base.dtype)
    second = np.empty((plan.second_masks, *base.shape), base.dtype)
    for chunk, values in results.items():
        place = outputs[:, chunk.repeat] if chunk.repeat < plan.repeats else second
        place[chunk.start : chunk.stop] = values
    return Bank(plan, trainer.masks, outputs, second if plan.second_masks else None, base)
