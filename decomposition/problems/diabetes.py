"""Diabetes: scikit-learn's bundled regression of disease progression."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_diabetes

from decomposition.problem import Problem
from decomposition.problems.table import Defaults, Table
from decomposition.problems.tabular import tabular_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

DEFAULTS = Defaults(
    hidden=(16, 8),
    quick_hidden=(8,),
    activation="gelu",
    recipe=Recipe(lr=0.01, schedule="cosine", epochs=40),
)


def diabetes(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Disease progression after one year, from ten measurements; a noisy target.

    354 training rows and 88 queries (80/20), MLP 10-16-8-1 with GELU (P = 321) and the squared
    error of the standardised target, SGD 0.01 with a cosine schedule, momentum 0.9, batch 32, 40
    epochs. Predicting the mean costs 1; the network reaches about 0.43 on the training rows and
    0.5 on the queries, as much as these data allow.

    Args:
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe.
        quick: a network of 10-8-1 instead.
        variant: changes to network and data.

    Raises:
        ProblemError: the seed is negative, or the variant asks for more than there is.
    """
    inputs, target = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    table = Table("diabetes", inputs, target[:, None], classes=None)
    return tabular_problem(table, DEFAULTS, seed, recipe, variant, quick)
