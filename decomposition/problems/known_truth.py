"""Problems whose truth is known: a linear model of linear data, and a network's own labels.

Their functions take what those of ``decomposition.problems.bundled`` take; ``quick`` changes
nothing, they are small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition import checks
from decomposition.checks import checked
from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.problems.table import Defaults, Table, problem_of
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

TRUTH, DRAW = 3, 4
"""Streams of random numbers."""
ROWS, FEATURES, OUTPUTS = 500, 24, 8
NOISE, CORRELATION = 0.5, 0.5
LINEAR = Defaults(
    hidden=(),
    quick_hidden=(),
    activation="identity",
    # Whole batches: every model, retrained or not, arrives at its own least-squares solution.
    recipe=Recipe(lr=1.0, momentum=0.9, batch_size=ROWS, epochs=300),
)
LABELLED, WIDTHS = 1000, (16, 12, 5)
GAINS = (1.5, 5.0)
"""Standard deviation of a layer's weights, times √d_in: curved, and mostly sure of its labels."""
TEACHER = Defaults(
    hidden=(WIDTHS[1],),
    quick_hidden=(WIDTHS[1],),
    activation="tanh",
    recipe=Recipe(schedule="cosine"),
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
    """
    checked("the seed of a problem", seed, checks.seed, ProblemError)
    truth = linear_truth(seed)
    generator = np.random.default_rng((seed, DRAW))
    factor = np.linalg.cholesky(truth.covariance)
    inputs = generator.standard_normal((ROWS, FEATURES)) @ factor.T
    noise = generator.standard_normal((ROWS, OUTPUTS))
    targets = inputs @ truth.weight.T + truth.bias + truth.noise * noise
    table = Table("linear_gaussian", inputs, targets, classes=None, standardise=False)
    return problem_of(table, LINEAR, seed, recipe, variant, quick)


@dataclass(frozen=True, eq=False)
class Teacher:
    """The network that drew the labels: p(y | x) = softmax(f(x)), a point of the model's own
    parameter space. There, E[H] = E[G] over labels, and the expected gradient is 0."""

    model: nn.Sequential

    def probabilities(self, x: Tensor) -> Float[Tensor, "n C"]:
        """p(y | x) of every row, in float64."""
        with torch.no_grad():
            return self.model.double()(x.double()).softmax(-1)

    def bayes_loss(self, x: Tensor) -> float:
        """Mean entropy of p(y | x): the expected cross-entropy that no model can better."""
        p = self.probabilities(x)
        return float(-torch.xlogy(p, p).sum(-1).mean())


def teacher_truth(seed: int = 0) -> Teacher:
    """The teacher that drew the labels of ``teacher(seed)``."""
    # PyTorch seeds with 32 bits of the number: a teacher of its initialisation could be the
    # student's own start.
    generator = np.random.default_rng((seed, TRUTH))
    model = mlp(WIDTHS, nn.Tanh, seed=0).double()
    with torch.no_grad():
        layers = [layer for layer in model if isinstance(layer, nn.Linear)]
        for layer, gain in zip(layers, GAINS, strict=True):
            draw = generator.standard_normal(layer.weight.shape) * gain / layer.in_features**0.5
            layer.weight.copy_(torch.from_numpy(draw))
            layer.bias.copy_(torch.from_numpy(generator.standard_normal(layer.out_features)))
    return Teacher(model)


def teacher(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Labels drawn from a known network of the model's own shape.

    800 training rows and 200 queries of 16 independent standard normal features, five classes,
    MLP 16-12-5 with tanh (P = 269), SGD 0.03 with a cosine schedule, momentum 0.9, batch 32, 20
    epochs. Known (``teacher_truth``): p(y | x) of every row, the best possible loss, and the
    parameters at which H = G in expectation. Inputs are not standardised: the teacher's weights
    are in their units.
    """
    checked("the seed of a problem", seed, checks.seed, ProblemError)
    truth = teacher_truth(seed)
    generator = np.random.default_rng((seed, DRAW))
    inputs = generator.standard_normal((LABELLED, WIDTHS[0])).astype(np.float32)
    above = truth.probabilities(torch.from_numpy(inputs)).cumsum(-1).numpy()
    labels = (generator.random((LABELLED, 1)) > above[:, :-1]).sum(1)
    table = Table("teacher", inputs, labels, classes=WIDTHS[-1], standardise=False)
    return problem_of(table, TEACHER, seed, recipe, variant, quick)
