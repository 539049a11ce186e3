"""Classification with a known teacher: labels drawn from a network that the model can equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.problem import Problem
from decomposition.problems.network import mlp
from decomposition.problems.table import Defaults, Table, check_seed
from decomposition.problems.tabular import tabular_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

ROWS, WIDTHS = 1000, (16, 12, 5)
GAINS = (1.5, 5.0)
"""Standard deviation of a layer's weights, times √d_in: curved, and mostly sure of its labels."""
TRUTH, DRAW = 3, 4

DEFAULTS = Defaults(
    hidden=(WIDTHS[1],),
    quick_hidden=(WIDTHS[1],),
    activation="tanh",
    recipe=Recipe(schedule="cosine"),
)


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

    Args:
        seed: seed of the teacher, the rows, the split, the initialisation and the noise.
        recipe: training recipe.
        quick: nothing is smaller; it is small.
        variant: changes to network and data.

    Raises:
        ProblemError: the seed is negative, or the variant asks for more than there is.
    """
    check_seed(seed)
    truth = teacher_truth(seed)
    generator = np.random.default_rng((seed, DRAW))
    inputs = generator.standard_normal((ROWS, WIDTHS[0])).astype(np.float32)
    above = truth.probabilities(torch.from_numpy(inputs)).cumsum(-1).numpy()
    labels = (generator.random((ROWS, 1)) > above[:, :-1]).sum(1)
    table = Table("teacher", inputs, labels, classes=WIDTHS[-1], standardise=False)
    return tabular_problem(table, DEFAULTS, seed, recipe, variant, quick)
