"""Digits by convolution: the 8×8 digits and two strided convolutions."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from decomposition.problem import Problem
from decomposition.problems.classes import labelled
from decomposition.problems.cnn import cnn
from decomposition.problems.digit_images import digit_images
from decomposition.problems.network import ACTIVATIONS, fitting
from decomposition.problems.table import Defaults
from decomposition.problems.variant import Variant, varied_name
from decomposition.recipe import Recipe

DEFAULTS = Defaults(
    hidden=(8, 16),
    quick_hidden=(4, 8),
    activation="gelu",
    recipe=Recipe(lr=0.05, schedule="cosine", epochs=15),
    query_fraction=0.1,
    quick_examples=600,
)
OPTIONS = {
    "hidden": "channels of one to three convolutions, such as 8-16; none for a linear model",
    "queries": "number of queries to keep, up to 180",
}


def digits_cnn(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
    queries: int | None = None,
) -> Problem:
    """Handwritten digits as 8×8 images, through two strided convolutions and a linear layer.

    1,617 training and 180 query digits, split as in ``digits``; convolutions of 3×3 with stride 2
    to 8 and 16 channels with GELU, then 64 features to 10 classes (P = 1,898). SGD 0.05 with a
    cosine schedule, momentum 0.9, batch 32, 15 epochs.

    Args:
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe.
        quick: 4 and 8 channels (P = 666) and 600 training digits instead.
        variant: changes to network and data; ``hidden`` are the convolutions' channels.
        queries: number of queries; None: all 180.

    Raises:
        ProblemError: the seed is negative, or more is asked for than there is.
    """
    variant = variant or Variant()
    table = digit_images("digits_cnn")
    data = labelled(table, DEFAULTS, seed, variant, queries, quick)
    channels = variant.hidden
    if channels is None:
        channels = DEFAULTS.quick_hidden if quick else DEFAULTS.hidden
    activation = ACTIVATIONS[variant.activation or DEFAULTS.activation]
    return Problem(
        model=fitting(table.name, lambda: cnn(channels, 10, activation, seed)),
        loss=nn.CrossEntropyLoss(),
        train=data.train,
        query=data.query,
        recipe=recipe or replace(DEFAULTS.recipe, seed=seed),
        name=varied_name(table.name, variant, "-".join(map(str, (1, *channels, 10))), quick),
        display=table.display,
    )
