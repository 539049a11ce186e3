"""What a bank of retrained models consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from decomposition.checks import Rule, check_fields, number, one_of, seed, whole
from decomposition.errors import ProblemError
from decomposition.retraining import seeds

RULES: dict[str, Rule] = {
    "alpha": number(0, 1, above=True),
    "masks": whole(2, bits=20),  # a correlation over subsets needs at least two
    "repeats": whole(1),
    "randomness": one_of("shared", "independent"),
    "seed": seed,
    "second_order_masks": whole(),
}
"""What each field of a BankPlan may be."""


@dataclass(frozen=True)
class BankPlan:
    """Which subsets are retrained, how often, and what their training shares with the base model.

    ``shared``: every model starts where the base model started and follows its order of
    examples as far as the subset allows (each epoch's order, filtered to the subset, then cut
    into batches); repeat r ≥ 1 follows another order, the same for all subsets.
    ``independent``: every model has its own initialisation and order; the initialisation is that
    of the modules' ``reset_parameters``.

    Raises:
        ProblemError: a value of the wrong type or outside its range; the message names it.
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
        check_fields(self, RULES, ProblemError)

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
