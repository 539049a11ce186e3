"""Breast cancer: scikit-learn's bundled Wisconsin diagnostic data."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_breast_cancer

from decomposition.problem import Problem
from decomposition.problems.table import Defaults, Table
from decomposition.problems.tabular import tabular_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

DEFAULTS = Defaults(
    hidden=(16, 8), quick_hidden=(8,), activation="gelu", recipe=Recipe(schedule="cosine")
)


def breast_cancer(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Malignant or benign, from 30 measurements of cell nuclei.

    455 training rows and 114 queries (80/20), MLP 30-16-8-2 with GELU (P = 650), SGD 0.03 with
    a cosine schedule, momentum 0.9, batch 32, 20 epochs: training loss about 0.04, query loss
    0.06 to 0.2 depending on the split.

    Args:
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe.
        quick: a network of 30-8-2 instead.
        variant: changes to network and data.

    Raises:
        ProblemError: the seed is negative, or the variant asks for more than there is.
    """
    inputs, labels = map(np.asarray, load_breast_cancer(return_X_y=True))
    table = Table("breast_cancer", inputs, labels, classes=2)
    return tabular_problem(table, DEFAULTS, seed, recipe, variant, quick)
