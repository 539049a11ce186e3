"""The two kinds of task in a study: retraining chunks of a bank, and the cells that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import xarray as xr

from decomposition.problem import Problem
from decomposition.retraining import retrain_part
from decomposition.retraining.fingerprint import TRAINER
from decomposition.retraining.training import BankTraining
from decomposition.source import import_closure
from decomposition.study.cell import Cell
from decomposition.study.compute import compute_cell
from decomposition.study.task import Task
from decomposition.targets.names import ONE_AT_A_TIME

RE_EXPORTS = frozenset({"study/__init__.py"})
"""Names the parts of a study for users; no cell is computed by what it imports."""


@dataclass(frozen=True)
class RetrainTask(Task):
    """One part of the retraining that the cells of one training share."""

    kind: ClassVar[str] = "retrain"
    stage: ClassVar[int] = 0

    cell: Cell
    """At the last of its checkpoints."""
    part: int
    parts: int
    models: int = field(default=0, compare=False)
    predicted: float = field(default=0.0, compare=False)
    peak: int = field(default=1 << 28, compare=False)

    @property
    def label(self) -> str:
        """The training and the part."""
        return f"retrain {self.cell.label}, part {self.part + 1}/{self.parts}"

    def config(self) -> dict[str, Any]:
        """The cell's configuration as far as training sees it, and the part."""
        cell = self.cell.config()
        settings = self.cell.settings
        return {
            **{name: cell[name] for name in ("dataset", "file", "variant", "recipe", "seed")},
            "plan": _plan(settings),
            "checkpoints": list(self.cell.checkpoints),
            "part": [self.part, self.parts],
        }

    def code(self) -> tuple[str, ...]:
        """The trainer and the problems."""
        return (*TRAINER, *import_closure("problems/registry.py"))

    def seconds(self) -> float:
        """As measured on a few steps of this training before the study started."""
        return self.predicted

    def memory(self) -> int:
        """Peak bytes."""
        return self.peak

    def compute(self, store: Path, threads: int) -> xr.DataTree:
        """Train the part's chunks into ``store``/bank; the result says how many models."""
        torch.set_num_threads(threads)
        models = retrain_part(
            untrained(self.cell),
            self.cell.settings.plan,
            store / "bank",
            self.part,
            self.parts,
            self.cell.checkpoints,
        )
        return xr.DataTree(xr.Dataset({"models": ((), models)}))


@dataclass(frozen=True)
class CellTask(Task):
    """Everything that is computed about one cell."""

    kind: ClassVar[str] = "cell"
    stage: ClassVar[int] = 1

    cell: Cell
    predicted: float = field(default=0.0, compare=False)
    peak: int = field(default=1 << 28, compare=False)

    @property
    def label(self) -> str:
        """The cell's."""
        return self.cell.label

    def config(self) -> dict[str, Any]:
        """The cell's."""
        return self.cell.config()

    def code(self) -> tuple[str, ...]:
        """Every module behind ``compute_cell``."""
        return import_closure("study/compute.py", RE_EXPORTS)

    def seconds(self) -> float:
        """As predicted from the speed of this machine's linear algebra."""
        return self.predicted

    def memory(self) -> int:
        """Peak bytes."""
        return self.peak

    def compute(self, store: Path, threads: int) -> xr.DataTree:
        """The cell's result; its bank is read from ``store``/bank, or trained into it."""
        torch.set_num_threads(threads)
        return compute_cell(self.cell, store)


def _plan(settings: Any) -> dict[str, Any]:
    plan = settings.plan
    return {
        name: getattr(plan, name)
        for name in ("alpha", "masks", "repeats", "randomness", "seed", "second_order_masks")
    }


@cache
def untrained(cell: Cell) -> Problem:
    """The problem as its bank sees it: where training starts, without the training."""
    problem = cell.problem()
    start = {name: value.detach().clone() for name, value in problem.model.state_dict().items()}
    return replace(problem, initial=start)


def trainings(cells: Sequence[Cell], every: bool = False) -> list[Cell]:
    """One cell for every distinct training, at its last checkpoint and with all of them.

    Cells whose target removes single examples train alone; only ``every`` names theirs too.
    """
    found: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        if every or cell.settings.target not in ONE_AT_A_TIME:
            recipe = replace(cell.recipe, checkpoint=None)
            key = (
                cell.dataset,
                cell.variant,
                recipe,
                cell.seed,
                tuple(_plan(cell.settings).items()),
            )
            found.setdefault(key, []).append(cell)
    merged = []
    for group in found.values():
        epochs = sorted({cell.recipe.last_epoch for cell in group})
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
        RetrainTask(cell, part, parts, chunk.models, seconds_per_model * chunk.models)
        for part, chunk in enumerate(training.chunks)
    ]
