"""Wine: scikit-learn's bundled chemical analyses of three cultivars."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_wine

from decomposition.problem import Problem
from decomposition.problems.table import Defaults, Table
from decomposition.problems.tabular import tabular_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

DEFAULTS = Defaults(
    hidden=(16, 8),
    quick_hidden=(8,),
    activation="tanh",
    recipe=Recipe(lr=0.01, schedule="cosine", batch_size=16),
)


def wine(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Which of three cultivars, from 13 chemical measurements; the smallest data set.

    142 training rows and 36 queries (80/20), MLP 13-16-8-3 with tanh (P = 387), SGD 0.01 with a
    cosine schedule, momentum 0.9, batch 16, 20 epochs.

    Args:
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe.
        quick: a network of 13-8-3 instead.
        variant: changes to network and data.

    Raises:
        ProblemError: the seed is negative, or the variant asks for more than there is.
    """
    inputs, labels = map(np.asarray, load_wine(return_X_y=True))
    table = Table("wine", inputs, labels, classes=3)
    return tabular_problem(table, DEFAULTS, seed, recipe, variant, quick)
