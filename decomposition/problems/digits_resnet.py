"""Digits by a network of a million parameters, for curvature that is never written down."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from decomposition.problem import Problem
from decomposition.problems.classes import labelled
from decomposition.problems.digit_images import digit_images
from decomposition.problems.network import ACTIVATIONS, check_blocks, fitting, one_width
from decomposition.problems.residual import ResidualNetwork
from decomposition.problems.table import Defaults
from decomposition.problems.variant import Variant, varied_name
from decomposition.recipe import Recipe

DEFAULTS = Defaults(
    hidden=(128,),
    quick_hidden=(16,),
    activation="gelu",
    recipe=Recipe(lr=0.03, schedule="cosine", epochs=25),
    query_fraction=0.1,
    queries=10,
    examples=200,
    quick_examples=100,
)
QUICK_RECIPE = replace(DEFAULTS.recipe, lr=0.1, epochs=40)
"""So few steps of a network without normalisation need to be larger."""
BLOCKS, QUICK_BLOCKS = 3, 1
OPTIONS = {
    "hidden": "channels of the last stage, a multiple of 4",
    "blocks": "residual blocks in the last stage",
    "queries": "number of queries to keep, up to 180",
}


def digits_resnet(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
    queries: int | None = None,
    blocks: int | None = None,
) -> Problem:
    """Handwritten digits as 8×8 images, through a residual network of a million parameters.

    200 training and 10 query digits (the first of those of ``digits``); ResidualNetwork with
    3 blocks of 128 channels, GELU and no normalisation (P = 1,057,162): too large for a dense
    matrix. SGD 0.03 with a cosine schedule, momentum 0.9, batch 32, 25 epochs.

    Args:
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe.
        quick: one block of 16 channels (P = 7,962) and 100 training digits instead, and
            SGD 0.1 for 40 epochs.
        variant: changes to network and data; ``hidden`` is the last stage's number of channels.
        queries: number of queries; None: 10.
        blocks: residual blocks in the last stage; None: 3, or 1 if quick.

    Raises:
        ProblemError: the seed is negative, more is asked for than there is, or the channels are
            no multiple of 4.
    """
    variant = variant or Variant()
    table = digit_images("digits_resnet")
    data = labelled(table, DEFAULTS, seed, variant, queries, quick)
    hidden = DEFAULTS.quick_hidden if quick else DEFAULTS.hidden
    width = one_width(table.name, hidden if variant.hidden is None else variant.hidden, 4)
    blocks = blocks or (QUICK_BLOCKS if quick else BLOCKS)
    check_blocks(table.name, blocks)
    activation = ACTIVATIONS[variant.activation or DEFAULTS.activation]
    return Problem(
        model=fitting(table.name, lambda: ResidualNetwork(width, blocks, 10, activation, seed)),
        loss=nn.CrossEntropyLoss(),
        train=data.train,
        query=data.query,
        recipe=recipe or replace(QUICK_RECIPE if quick else DEFAULTS.recipe, seed=seed),
        name=varied_name(table.name, variant, f"{blocks} blocks of {width}", quick),
        display=table.display,
    )
