"""The bank: what models retrained without some examples answer to the queries.

Shapes: M masks, R repeats, N training examples, Q queries, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.retraining.cells import Chunk
from decomposition.retraining.measures import Measure, measure
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.training import BankTraining

__all__ = ["Bank", "BankPlan", "retrain_bank", "retrain_part"]


@dataclass(frozen=True, eq=False)
class Bank:
    """Outputs of the retrained models; every later question is answered from these."""

    plan: BankPlan
    """What was trained."""
    masks: Bool[np.ndarray, "M N"]
    """True marks an example that the model was trained on."""
    outputs: Float[np.ndarray, "M R Q C"] | None
    """Raw model outputs f(x_q), in the training precision; None of a supplied bank of losses."""
    second_outputs: Float[np.ndarray, "M2 Q C"] | None
    """The first M₂ masks under other randomness (repeat R); None where R ≥ 2."""
    base_outputs: Float[np.ndarray, "Q C"]
    """Outputs of the base model."""

    @property
    def answers(self) -> Float[np.ndarray, "M R Q *C"]:
        """What it holds of every model: outputs, or losses."""
        assert self.outputs is not None
        return self.outputs

    def measurements(
        self, problem: Problem, function: Measure = "loss"
    ) -> Float[np.ndarray, "M R Q"]:
        """The measured loss or margin (see ``measure``) of every retrained model, in float64."""
        assert self.outputs is not None
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
    checkpoints: Sequence[int] = (),
) -> Bank:
    """Retrain the model on every subset of the plan, or read from ``folder`` what is there.

    One training passes through all ``checkpoints`` on its way to the recipe's last epoch; what
    the models answer there is kept in the folder too, where the same call with that
    ``Recipe.checkpoint`` finds it.

    Args:
        problem: a trained problem, see ``Problem.trained``.
        plan: what to train; default 1,000 half-subsets.
        folder: where finished chunks are kept; None keeps nothing. Killed at any time, the same
            call resumes and returns the same bits. Several processes may share a folder.
        chunk_size: models trained in one stack; default ``default_chunk_size``.
        progress: show a progress bar.
        checkpoints: further epochs, before the last, whose outputs go to the folder.

    Raises:
        ProblemError: the problem is untrained, the plan or a checkpoint does not fit it, or a
            model diverged.
        UnsupportedModelError: the model cannot be stacked or initialised afresh.
        StoreError: the folder cannot be used.
    """
    training = BankTraining(problem, plan or BankPlan(), folder, chunk_size, checkpoints)
    return _assemble(training, training.train(training.chunks, progress))


def retrain_part(
    problem: Problem,
    plan: BankPlan,
    folder: Path,
    part: int,
    parts: int,
    checkpoints: Sequence[int] = (),
    progress: bool = False,
) -> int:
    """Train chunks ``part``, ``part + parts``, … of a bank into ``folder``; how many models.

    Parts are independent: other processes or machines may train the others into the same folder,
    where ``retrain_bank`` finds them all. The problem's own parameters play no role, only
    ``initial``.

    Raises:
        ProblemError, UnsupportedModelError, StoreError: as ``retrain_bank``.
    """
    if not 0 <= part < parts:
        raise ProblemError(f"part must lie in 0 … {parts - 1}, got {part}")
    training = BankTraining(problem, plan, folder, None, checkpoints)
    mine = training.chunks[part::parts]
    training.train(mine, progress)
    return sum(chunk.models for chunk in mine)


def _assemble(training: BankTraining, results: Mapping[Chunk, np.ndarray]) -> Bank:
    plan, base = training.plan, training.trainer.base_outputs()
    outputs = np.empty((plan.masks, plan.repeats, *base.shape), base.dtype)
    second = np.empty((plan.second_masks, *base.shape), base.dtype)
    for chunk, values in results.items():
        place = outputs[:, chunk.repeat] if chunk.repeat < plan.repeats else second
        place[chunk.start : chunk.stop] = values
    return Bank(plan, training.trainer.masks, outputs, second if plan.second_masks else None, base)
