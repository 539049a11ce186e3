"""The two kinds of task in a study: retraining chunks of a bank, and the cells that read them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr

from decomposition.pipeline import compute_cell
from decomposition.problem import Problem
from decomposition.retraining import retrain_part
from decomposition.retraining.bank import BankTraining
from decomposition.retraining.fingerprint import trainer_code
from decomposition.retraining.supplied import as_supplied
from decomposition.source import import_closure
from decomposition.study.cell import Cell
from decomposition.study.task import Task
from decomposition.targets.functions import ONE_AT_A_TIME
from decomposition.targets.truth import settings_of

ASKED_FOR = 1e6
"""Hours: what a study retrains has been predicted and is wanted, whatever it takes."""
RE_EXPORTS = frozenset({"study/__init__.py"})
"""Names the parts of a study for users; no cell is computed by what it imports."""


@dataclass(frozen=True, kw_only=True)
class _OfCell(Task, ABC):
    """A task about one cell, with what it was predicted to take."""

    cell: Cell
    predicted: float = field(default=0.0, compare=False)
    """Processor seconds."""
    peak: int = field(default=1 << 28, compare=False)
    """Bytes."""

    def seconds(self) -> float:
        """As predicted from what was measured on this machine before the study started."""
        return self.predicted

    def memory(self) -> int:
        """Peak bytes."""
        return self.peak


@dataclass(frozen=True, kw_only=True)
class RetrainTask(_OfCell):
    """One part of the retraining that the cells of one training share.

    Its cell is the one at the last of the training's checkpoints.
    """

    kind: ClassVar[str] = "retrain"
    stage: ClassVar[int] = 0

    part: int
    parts: int
    models: int = field(default=0, compare=False)

    @property
    def label(self) -> str:
        """The training and the part."""
        return f"retrain {self.cell.label}, part {self.part + 1}/{self.parts}"

    def config(self) -> dict[str, Any]:
        """The cell's configuration as far as training sees it, and the part."""
        cell = self.cell.config()
        return {
            **{name: cell[name] for name in ("dataset", "file", "variant", "recipe", "seed")},
            "plan": asdict(self.cell.settings.plan),
            "checkpoints": list(self.cell.checkpoints),
            "part": [self.part, self.parts],
        }

    def code(self) -> tuple[str, ...]:
        """The trainer and the problems."""
        return (*trainer_code(), *import_closure("problems/registry.py"))

    def compute(self, store: Path, threads: int) -> xr.DataTree:
        """Train the part's chunks into ``store``/bank; the result says how many models."""
        models = retrain_part(
            untrained(self.cell),
            self.cell.settings.plan,
            store / "bank",
            self.part,
            self.parts,
            self.cell.checkpoints,
        )
        return xr.DataTree(xr.Dataset({"models": ((), models)}))


@dataclass(frozen=True, kw_only=True)
class CellTask(_OfCell):
    """Everything that is computed about one cell."""

    kind: ClassVar[str] = "cell"
    stage: ClassVar[int] = 1

    @property
    def label(self) -> str:
        """Name of the cell, in progress bars and reports."""
        return self.cell.label

    def config(self) -> dict[str, Any]:
        """Everything that determines the cell's numbers, as JSON can say it."""
        return self.cell.config()

    def code(self) -> tuple[str, ...]:
        """Every module behind ``compute_cell``, and the problems."""
        return import_closure("pipeline.py", RE_EXPORTS) + import_closure("study/cell.py")

    def compute(self, store: Path, threads: int) -> xr.DataTree:
        """The cell's result; its bank is read from ``store``/bank, or trained into it."""
        cell = self.cell
        problem, settings, bank = cell.problem(), cell.settings, None
        if cell.bank is not None:
            bank = as_supplied(cell.bank, problem)
            settings = settings_of(bank, settings)
        return compute_cell(
            problem,
            replace(settings, retrain_hours=ASKED_FOR, memory=cell.memory),
            extra=cell.rungs(),
            bank=bank,
            folder=store,
        )


def training_of(cell: Cell) -> tuple[Hashable, ...]:
    """What cells that are checkpoints of one training have in common."""
    recipe = replace(cell.training, checkpoint=None)
    return (cell.dataset, cell.variant, recipe, cell.seed, cell.settings.plan)


@cache
def untrained(cell: Cell) -> Problem:
    """The problem as its bank sees it: where training starts, without the training."""
    problem = cell.problem()
    if problem.initial is not None:  # trained by its maker, who says where from
        return problem
    start = {name: value.detach().clone() for name, value in problem.model.state_dict().items()}
    return replace(problem, initial=start)


def trainings(cells: Sequence[Cell], every: bool = False) -> list[Cell]:
    """One cell for every distinct training, at its last checkpoint and with all of them.

    Cells whose target removes single examples train alone, those with a bank not at all; only
    ``every`` names theirs too.
    """
    found: dict[tuple[Hashable, ...], list[Cell]] = {}
    for cell in cells:
        shared = cell.settings.target not in ONE_AT_A_TIME and cell.bank is None
        if every or shared:
            found.setdefault(training_of(cell), []).append(cell)
    merged = []
    for group in found.values():
        epochs = sorted({cell.training.last_epoch for cell in group})
        last = group[0].at(epochs[-1])
        merged.append(replace(last, checkpoints=tuple(epochs[:-1])))
    return merged


def retrain_tasks(cell: Cell, seconds_per_model: float = 0.0) -> list[RetrainTask]:
    """One task for every chunk of the cell's bank.

    Args:
        cell: as ``trainings`` makes them.
        seconds_per_model: processor seconds of one training up to the last checkpoint.
    """
    training = BankTraining(untrained(cell), cell.settings.plan, None, None, cell.checkpoints)
    parts = len(training.chunks)
    return [
        RetrainTask(
            cell=cell,
            part=part,
            parts=parts,
            models=chunk.models,
            predicted=seconds_per_model * chunk.models,
        )
        for part, chunk in enumerate(training.chunks)
    ]
