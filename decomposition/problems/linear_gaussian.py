"""Linear-Gaussian regression: everything about it is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from decomposition.problem import Problem
from decomposition.problems.table import Defaults, Table, check_seed
from decomposition.problems.tabular import tabular_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

ROWS, FEATURES, OUTPUTS = 500, 24, 8
NOISE, CORRELATION = 0.5, 0.5
TRUTH, DRAW = 3, 4

DEFAULTS = Defaults(
    hidden=(),
    quick_hidden=(),
    activation="identity",
    # Whole batches: every model, retrained or not, arrives at its own least-squares solution.
    recipe=Recipe(lr=1.0, momentum=0.9, batch_size=ROWS, epochs=300),
)


@dataclass(frozen=True, eq=False)
class LinearTruth:
    """y = W x + b + σ ε with x ~ N(0, Σ), ε ~ N(0, I): W (C, d), b (C,), Σ (d, d)."""

    weight: Float[np.ndarray, "C d"]
    bias: Float[np.ndarray, " C"]
    noise: float
    """σ: at the truth, the expected loss is σ² on training rows and queries alike."""
    covariance: Float[np.ndarray, "d d"]


def linear_truth(seed: int = 0) -> LinearTruth:
    """The parameters that the rows of ``linear_gaussian(seed)`` were drawn with."""
    generator = np.random.default_rng((seed, TRUTH))
    lag = np.abs(np.subtract.outer(np.arange(FEATURES), np.arange(FEATURES)))
    return LinearTruth(
        generator.standard_normal((OUTPUTS, FEATURES)) / FEATURES**0.5,
        generator.standard_normal(OUTPUTS),
        NOISE,
        CORRELATION**lag,
    )


def linear_gaussian(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """A null control: a linear model of linear data, on which no step costs anything.

    400 training rows and 100 queries, 24 correlated Gaussian features, eight outputs, a linear
    model (P = 200), trained by gradient descent on the whole batch until it is the least-squares
    solution. Known: the generating parameters (``linear_truth``); the minimum, the curvature
    H = G = (2/C) I ⊗ AᵀA/N, to which every rung of the chain is equal, and the exact effect of
    leaving one example out (``decomposition.problems.least_squares``). Inputs and targets are
    not standardised: their units are those of the truth.

    Args:
        seed: seed of the truth, the rows, the split, the initialisation and the noise.
        recipe: training recipe.
        quick: nothing is smaller; it is small.
        variant: changes to network and data.

    Raises:
        ProblemError: the seed is negative, or the variant asks for more than there is.
    """
    check_seed(seed)
    truth = linear_truth(seed)
    generator = np.random.default_rng((seed, DRAW))
    factor = np.linalg.cholesky(truth.covariance)
    inputs = generator.standard_normal((ROWS, FEATURES)) @ factor.T
    noise = generator.standard_normal((ROWS, OUTPUTS))
    targets = inputs @ truth.weight.T + truth.bias + truth.noise * noise
    table = Table("linear_gaussian", inputs, targets, classes=None, standardise=False)
    return tabular_problem(table, DEFAULTS, seed, recipe, variant, quick)
