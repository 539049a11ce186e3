"""Train the chunks of a bank that are not in its folder yet, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from decomposition.errors import ProblemError
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.retraining.cells import CellTrainer, Chunk, chunks
from decomposition.retraining.fingerprint import chunk_key, study_fingerprint
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.store import ChunkStore
from decomposition.retraining.workers import in_parallel

PARAMETERS_PER_STACK = 500_000
ACTIVATIONS_PER_STACK = 8_000_000
LARGEST_STACK = 500


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
    about 500,000 / P, and at most 8,000,000 / activations.

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
