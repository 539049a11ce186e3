"""Digits: scikit-learn's bundled 8×8 handwritten digits and a small GELU network."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from decomposition.problem import Problem
from decomposition.problems.network import mlp
from decomposition.problems.table import Defaults, Table
from decomposition.problems.tabular import tabular_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

__all__ = ["digits", "mlp"]

DEFAULTS = Defaults(hidden=(64, 32), quick_hidden=(16, 16), activation="gelu", query_fraction=0.1)


def digits(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Handwritten digits of 8×8 pixels, ten classes.

    1,617 training and 180 query digits, MLP 64-64-32-10 with GELU (P = 6,570), SGD 0.03,
    momentum 0.9, batch 32, 20 epochs. One permutation (NumPy's default generator at ``seed``)
    splits the 1,797 digits 90/10; row i of ``train`` is the same digit in training, curvature,
    masks and scores. Inputs are standardised with the training rows' mean and standard
    deviation; pixels that are constant on the training rows become 0.

    Args:
        seed: seed of the split, the initialisation and the base model's order of examples.
        recipe: training recipe.
        quick: a network of 64-16-16-10 (P = 1,482) instead, for a first look.
        variant: changes to network and data.

    Raises:
        ProblemError: the seed is negative, or the variant asks for more than there is.
    """
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    table = Table("digits", images, labels, classes=10, display={"image_shape": [8, 8]})
    return tabular_problem(table, DEFAULTS, seed, recipe, variant, quick)
