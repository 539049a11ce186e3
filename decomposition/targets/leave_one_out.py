"""Which examples are removed one at a time, and the bank of models retrained without them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from decomposition.retraining import seeds
from decomposition.retraining.plan import BankPlan
from decomposition.targets.functions import TargetError

LEFT_OUT = 4
"""Stream of the choice of examples, beside those of ``retraining.seeds``."""


def removed_examples(seed: int, count: int, examples: int) -> Int64[np.ndarray, " M"]:
    """min(count, N) training examples, uniform without replacement; fewer begin the same list."""
    return seeds.permutation(seed, LEFT_OUT, size=examples)[:count]


def without(removed: Int64[np.ndarray, " M"], examples: int) -> Bool[np.ndarray, "M N"]:
    """Masks that keep all examples but one: row k lacks example ``removed[k]``."""
    masks = np.ones((len(removed), examples), dtype=bool)
    masks[np.arange(len(removed)), removed] = False
    return masks


@dataclass(frozen=True)
class LeaveOneOutPlan(BankPlan):
    """A bank whose mask k lacks the k-th of the removed examples and no other.

    ``masks`` is their number (at most N) and ``alpha`` plays no part.
    """

    @classmethod
    def of(cls, plan: BankPlan, count: int, examples: int) -> LeaveOneOutPlan:
        """Repeats, randomness and seed of ``plan``, with min(count, N) examples removed."""
        return cls(
            masks=min(count, examples),
            repeats=plan.repeats,
            randomness=plan.randomness,
            seed=plan.seed,
            second_order_masks=plan.second_order_masks,
        )

    def kept(self, examples: int) -> int:
        """N − 1.

        Raises:
            TargetError: there are fewer examples than are to be removed.
        """
        if not self.masks <= examples or examples < 2:
            raise TargetError(
                f"{self.masks} examples cannot be left out of {examples}, one at a time: lower "
                "leave_one_out_examples"
            )
        return examples - 1

    def subsets(self, examples: int) -> Bool[np.ndarray, "M N"]:
        """All masks; True marks an example that is kept."""
        self.kept(examples)
        return without(removed_examples(self.seed, self.masks, examples), examples)
