"""Characters: what comes next in Shakespeare's sonnets, by a small transformer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems.classes import labelled
from decomposition.problems.network import ACTIVATIONS, check_blocks, fitting, one_width
from decomposition.problems.sonnets import ALPHABET, sonnets, windows
from decomposition.problems.table import Defaults, Table
from decomposition.problems.transformer import Transformer
from decomposition.problems.variant import Variant, varied_name
from decomposition.recipe import Recipe

DEFAULTS = Defaults(
    hidden=(12,),
    quick_hidden=(8,),
    activation="gelu",
    recipe=Recipe(lr=0.1, schedule="cosine", epochs=10),
    query_fraction=0.1,
    queries=100,
    examples=600,
    quick_examples=400,
)
HEADS = 2
LENGTH, QUICK_LENGTH = 16, 8
LONGEST = 256
BLOCKS, QUICK_BLOCKS = 2, 1
OPTIONS = {
    "hidden": "width of the transformer, a multiple of 2",
    "blocks": "transformer blocks",
    "length": "characters to predict the next one from, 1 to 256",
    "predictions": "characters of a window, from the last, whose next one is predicted; 1",
    "queries": "number of queries to keep",
}


def chars(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
    queries: int | None = None,
    blocks: int | None = None,
    length: int | None = None,
    predictions: int | None = None,
) -> Problem:
    """The next character after 16 of Shakespeare's sonnets, by a two-layer causal transformer.

    600 training and 100 query windows of 16 characters out of 28 (letters, space, apostrophe),
    none of which overlap in the text; a pre-norm transformer of width 12 with two heads and GELU
    (P = 3,412) predicts the character that follows. SGD 0.1 with a cosine schedule,
    momentum 0.9, batch 32, 10 epochs.

    Args:
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe.
        quick: one block of width 8 on 8 characters (P = 1,132) and 400 training windows instead.
        variant: changes to network and data; ``hidden`` is the transformer's width, and
            ``label_noise`` the fraction of training windows followed by a wrong character.
        queries: number of queries; None: 100.
        blocks: transformer blocks; None: 2, or 1 if quick.
        length: characters in a window; None: 16, or 8 if quick.
        predictions: predict the character that follows each of this many characters of a window,
            its last ones, whose mean is the window's loss; None: 1. GGN and factors take 28 rows
            an example for each.

    Raises:
        ProblemError: the seed is negative, more is asked for than there is, or the width is odd.
    """
    variant = variant or Variant()
    length = length or (QUICK_LENGTH if quick else LENGTH)
    if length > LONGEST:
        raise ProblemError(f"chars: length must be 1 to {LONGEST} characters, got {length}")
    predictions = predictions or 1
    if predictions > length:
        raise ProblemError(
            f"chars: predictions must be 1 to the {length} characters of a window, got "
            f"{predictions}"
        )
    tokens, following = windows(sonnets(), length)
    if predictions > 1:
        following = np.column_stack([tokens, following])[:, -predictions:]
    table = Table("chars", tokens, following, classes=len(ALPHABET), standardise=False)
    data = labelled(table, DEFAULTS, seed, variant, queries, quick)
    hidden = DEFAULTS.quick_hidden if quick else DEFAULTS.hidden
    width = one_width(table.name, hidden if variant.hidden is None else variant.hidden, HEADS)
    blocks = blocks or (QUICK_BLOCKS if quick else BLOCKS)
    activation = ACTIVATIONS[variant.activation or DEFAULTS.activation]
    check_blocks(table.name, blocks)
    sizes = (len(ALPHABET), length, width, blocks, HEADS)
    model = fitting("chars", lambda: Transformer(*sizes, activation, seed, predictions))
    return Problem(
        model=model,
        loss=nn.CrossEntropyLoss(),
        train=data.train,
        query=data.query,
        recipe=recipe or replace(DEFAULTS.recipe, seed=seed),
        name=varied_name(table.name, variant, f"{blocks} blocks of {width}", quick),
    )
