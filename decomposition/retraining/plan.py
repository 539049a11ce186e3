"""What a bank of retrained models consists of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from decomposition.errors import ProblemError
from decomposition.retraining import seeds


@dataclass(frozen=True)
class BankPlan:
    """Which subsets are retrained, how often, and what their training shares with the base model.

    ``shared``: every model starts where the base model started and follows its order of
    examples as far as the subset allows (each epoch's order, filtered to the subset, then cut
    into batches); repeat r ≥ 1 follows another order, the same for all subsets.
    ``independent``: every model has its own initialisation and order; the initialisation is that
    of the modules' ``reset_parameters``.

    Raises:
        ProblemError: a value is outside its range; the message names it.
    """

    alpha: float = 0.5
    """Fraction of the training examples that a subset keeps."""
    masks: int = 1000
    """M, the number of subsets."""
    repeats: int = 1
    """R, trainings of each subset."""
    randomness: Literal["shared", "independent"] = "shared"
    """What training shares with the base model."""
    seed: int = 0
    """Seed of the subsets and, for ``independent``, of initialisations and orders."""
    second_order_masks: int = 100
    """With one repeat: how many masks are trained once more for the noise ceiling."""

    def __post_init__(self) -> None:
        """Check what can be checked without the data."""
        if not (math.isfinite(self.alpha) and 0.0 < self.alpha < 1.0):
            raise ProblemError(
                f"BankPlan.alpha must lie strictly between 0 and 1, got {self.alpha}: it is the "
                "fraction of the training examples that each retrained model keeps"
            )
        self._whole("masks", self.masks, 2, ": a correlation over subsets needs at least two")
        self._whole("repeats", self.repeats, 1)
        self._whole("seed", self.seed, 0)
        self._whole("second_order_masks", self.second_order_masks, 0)
        if self.randomness not in ("shared", "independent"):
            raise ProblemError(
                f"BankPlan.randomness must be shared or independent, got {self.randomness!r}"
            )

    @staticmethod
    def _whole(name: str, value: int, least: int, why: str = "") -> None:
        if not math.isfinite(value) or int(value) != value or value < least:
            raise ProblemError(
                f"BankPlan.{name} must be a whole number >= {least}, got {value}{why}"
            )

    def kept(self, examples: int) -> int:
        """round(alpha · N), the size of every subset.

        Raises:
            ProblemError: it keeps or removes no example at all.
        """
        kept = round(self.alpha * examples)
        if not 0 < kept < examples:
            what = "keeps none" if kept == 0 else "removes none"
            raise ProblemError(
                f"BankPlan.alpha = {self.alpha} {what} of the {examples} training examples: at "
                "least one has to be kept and one removed"
            )
        return kept

    def subsets(self, examples: int) -> Bool[np.ndarray, "M N"]:
        """All masks; True marks an example that is kept."""
        kept = self.kept(examples)
        return seeds.subset_masks(self.seed, 0, self.masks, kept, examples)

    @property
    def second_masks(self) -> int:
        """M₂, the masks that are trained once more; 0 where repeats serve the noise ceiling."""
        return min(self.second_order_masks, self.masks) if self.repeats == 1 else 0
