"""A study: cells that differ in what it varies, and what it says it varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from decomposition.checks import (
    Rule,
    check_fields,
    checked,
    instance,
    one_of,
    several,
    text,
    whole,
)
from decomposition.errors import DecompositionError
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe
from decomposition.settings import Settings
from decomposition.study.cell import Cell
from decomposition.study.trends import FACTORS

PAPER_RECIPE = Recipe(optimizer="sgd", lr=0.03, momentum=0.0, schedule="cosine", batch_size=32)
"""Training as in the paper's digits experiments: no momentum, no weight decay."""
TINY_EPOCHS = 3
RULES: dict[str, Rule] = {
    **dict.fromkeys(("name", "title", "description"), text),
    "cells": several(instance(Cell)),
    "factor": one_of(*FACTORS, "multiplier", "grid"),
}
"""What each field of a Study may be."""


@dataclass(frozen=True)
class Study:
    """A named grid of cells.

    Raises:
        DecompositionError: no cells, the same cell twice, or an unknown factor.
    """

    name: str
    title: str
    description: str
    cells: tuple[Cell, ...]
    factor: str = "grid"
    """The coordinate that varies (see ``study.trends.FACTORS``), ``multiplier``, or ``grid``."""

    def __post_init__(self) -> None:
        """Check once."""
        check_fields(self, RULES, DecompositionError)
        if not self.cells:
            raise DecompositionError(f"study {self.name!r} has no cells")
        if len(set(self.cells)) < len(self.cells):
            raise DecompositionError(f"study {self.name!r} has the same cell twice")


def architectures(
    hidden: Sequence[Sequence[int]],
    epochs: Sequence[int],
    settings: Settings,
    *,
    dataset: str = "digits",
    activation: str = "tanh",
    seeds: int = 1,
    recipe: Recipe = PAPER_RECIPE,
    schedule_epochs: int | None = None,
    ladder: bool = False,
    tiny: bool = False,
) -> tuple[Cell, ...]:
    """Cells for every architecture, seed and checkpoint; checkpoints share one training.

    Args:
        hidden: widths of the hidden layers of every architecture.
        epochs: checkpoints, in epochs of one training.
        settings: of every cell.
        dataset: name or file, see ``decompose problems``.
        activation: of all hidden layers.
        seeds: base models of each architecture.
        recipe: of all trainings; its epochs are the span of the schedule.
        schedule_epochs: length of the training; default the last checkpoint.
        ladder: also score the rungs that lead to the paper's protocol.
        tiny: one to three epochs instead.

    Raises:
        DecompositionError: a value of the wrong type or outside its range.
    """
    seeds = checked("seeds", seeds, whole(1), DecompositionError)
    hidden = checked("hidden", hidden, several(several(whole(1))), DecompositionError)
    epochs = checked("epochs", epochs, several(whole()), DecompositionError)
    if not epochs:
        raise DecompositionError("epochs names no checkpoint: give one at least")
    if tiny:
        epochs = range(1, min(len(epochs), TINY_EPOCHS) + 1)
        schedule_epochs = None
    length = schedule_epochs or max(epochs)
    return tuple(
        Cell(
            dataset,
            Variant(hidden=tuple(widths), activation=activation),
            replace(recipe, epochs=length, checkpoint=epoch, seed=seed),
            settings,
            seed,
            ladder=ladder,
        )
        for seed in range(seeds)
        for widths in hidden
        for epoch in epochs
    )


@dataclass(frozen=True)
class OneNetwork:
    """Options of the presets that keep the architecture and vary something else."""

    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers."""
    epochs: tuple[int, ...] = (100,)
    """Checkpoints of one training."""
    dataset: str = "digits"
    """Name or file, see `decompose problems`."""

    def cells(
        self, settings: Settings, seeds: int, tiny: bool, ladder: bool = False
    ) -> tuple[Cell, ...]:
        """The cells of the network, one for every seed and checkpoint."""
        return architectures(
            [self.hidden],
            self.epochs,
            settings,
            dataset=self.dataset,
            seeds=seeds,
            ladder=ladder,
            tiny=tiny,
        )
