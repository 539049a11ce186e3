"""The bank: what models retrained without some examples answer to the queries.

Its chunks are trained several at a time, unless they are in its folder already.

Shapes: M masks, R repeats, N training examples, Q queries, C outputs, m models of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from decomposition.errors import ProblemError
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.retraining.cells import CellTrainer, Chunk, chunks
from decomposition.retraining.fingerprint import chunk_key, study_fingerprint
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.store import ChunkStore
from decomposition.retraining.trainer import in_parallel
from decomposition.targets.functions import Measure, measure

PARAMETERS_PER_STACK = 700_000
ACTIVATIONS_PER_STACK = 8_000_000
LARGEST_STACK = 500


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


class BankTraining:
    """The chunks of one bank: where they are kept, and how they are trained.

    Raises:
        ProblemError: the problem is untrained, the plan or a checkpoint does not fit it.
        UnsupportedModelError: the model cannot be stacked or initialised afresh.
        StoreError: the folder cannot be used.
    """

    def __init__(
        self,
        problem: Problem,
        plan: BankPlan,
        folder: Path | None,
        chunk_size: int | None = None,
        checkpoints: Sequence[int] = (),
    ) -> None:
        """Draw the masks, open the folder, and name the study at every checkpoint."""
        if chunk_size is not None and chunk_size < 1:
            raise ProblemError(f"chunk_size must be at least 1, got {chunk_size}")
        self.last = problem.recipe.last_epoch
        if not all(0 <= epoch <= self.last for epoch in checkpoints):
            raise ProblemError(
                f"checkpoints must be among the {self.last} epochs that are trained, got "
                f"{[*checkpoints]}"
            )
        self.plan = plan
        self.trainer = CellTrainer(problem, plan)
        if chunk_size is None:
            chunk_size = default_chunk_size(problem.num_parameters, self.trainer.activations)
        self.chunks, self._most = list(chunks(plan, chunk_size)), chunk_size  # until memory ends
        self._store = ChunkStore(folder)
        start = self.trainer.start(0, 0)
        self._studies = {
            epoch: study_fingerprint(_at(problem, epoch), plan, start)
            for epoch in sorted({*checkpoints, self.last})
        }

    def read(self, chunk: Chunk) -> np.ndarray | None:
        """Outputs (m, Q, C) at the last epoch; None unless every checkpoint is in the folder."""
        found = [self._store.load(self._key(chunk, epoch)) for epoch in self._studies]
        return None if any(outputs is None for outputs in found) else found[-1]

    def train(self, wanted: Sequence[Chunk], progress: bool) -> dict[Chunk, np.ndarray]:
        """Outputs of the ``wanted`` chunks at the last epoch, trained or found.

        Raises:
            ProblemError: a model diverged.
            StoreError: the folder cannot be read or written.
        """
        results = {c: outputs for c in wanted if (outputs := self.read(c)) is not None}

        def work(chunk: Chunk, check: Callable[[], None]) -> None:
            check()
            found = self.read(chunk)  # another process may have finished it by now
            results[chunk] = self._train(chunk, check) if found is None else found

        with tqdm(
            total=sum(chunk.models for chunk in wanted),
            initial=sum(chunk.models for chunk in results),
            desc="retraining",
            unit="model",
            disable=not progress,
        ) as bar:
            todo = [chunk for chunk in wanted if chunk not in results]
            most = None if self.trainer.problem.device.type == "cpu" else 1  # one fills a device
            in_parallel(work, todo, lambda chunk: bar.update(chunk.models), most)
        return results

    def _train(self, chunk: Chunk, check: Callable[[], None]) -> np.ndarray:
        def some(models: slice) -> dict[int, np.ndarray]:
            part = Chunk(chunk.start + models.start, chunk.start + models.stop, chunk.repeat)
            return self.trainer.outputs(part, self._studies, check)

        def shrunk(models: int) -> None:
            self._most = min(self._most, models)

        parts = list(shrinking(some, chunk.models, self._most, shrunk=shrunk))
        outputs = {epoch: np.concatenate([one[epoch] for one in parts]) for epoch in parts[0]}
        self.trainer.audit(chunk, outputs, check)  # before it is kept: what is kept is right
        for epoch, values in outputs.items():
            self._store.save(self._key(chunk, epoch), values)
        return outputs[self.last]

    def _key(self, chunk: Chunk, epoch: int) -> str:
        masks = self.trainer.masks[chunk.start : chunk.stop]
        return chunk_key(self._studies[epoch], masks, chunk.start, chunk.repeat)


def default_chunk_size(parameters: int, activations: int = 0) -> int:
    """Models per stack for P ``parameters`` and ``activations`` numbers held by each model:
    about 700,000 / P, and at most 8,000,000 / activations.

    Small stacks spend their time between operations, large ones outside the cache. Rounded down
    to 1, 2 or 5 times a power of ten, so that round numbers of masks have common chunks and a bank
    of 1,000 finds those of 100; free memory plays no part for the same reason.
    """
    limit = min(PARAMETERS_PER_STACK // parameters, LARGEST_STACK)
    if activations:
        limit = min(limit, ACTIVATIONS_PER_STACK // activations)
    limit = max(1, limit)
    return max(n * 10**k for n in (1, 2, 5) for k in range(3) if n * 10**k <= limit)


def _at(problem: Problem, epoch: int) -> Problem:
    return replace(problem, recipe=replace(problem.recipe, checkpoint=epoch))
