"""Characters: what comes next in Shakespeare's sonnets, by a small transformer."""

from __future__ import annotations

import re
from importlib import resources

import numpy as np
from jaxtyping import Int

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems.networks import Transformer, check_blocks, one_width
from decomposition.problems.table import Defaults, Network, Table, problem_of
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

ALPHABET = " abcdefghijklmnopqrstuvwxyz'"
"""Characters by their token."""
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
    length = length or (QUICK_LENGTH if quick else LENGTH)
    if length > LONGEST:
        raise ProblemError(f"chars: length must be 1 to {LONGEST} characters, got {length}")
    predictions = predictions or 1
    if predictions > length:
        raise ProblemError(
            f"chars: predictions must be 1 to the {length} characters of a window, got "
            f"{predictions}"
        )
    width = one_width("chars", DEFAULTS.widths(variant, quick), HEADS)
    blocks = blocks or (QUICK_BLOCKS if quick else BLOCKS)
    check_blocks("chars", blocks)
    sizes = (len(ALPHABET), length, width, blocks, HEADS)
    network = Network(
        f"{blocks} blocks of {width}",
        lambda activation, seed: Transformer(*sizes, activation, seed, predictions),
    )
    tokens, following = windows(sonnets(), length)
    if predictions > 1:
        following = np.column_stack([tokens, following])[:, -predictions:]
    table = Table("chars", tokens, following, classes=len(ALPHABET), standardise=False)
    return problem_of(table, DEFAULTS, seed, recipe, variant, quick, network, queries)


def sonnets() -> str:
    """The verses in small letters: titles, numerals and punctuation but the apostrophe are gone.

    Whatever stands between words becomes one space. About 90,000 characters of ALPHABET.
    """
    source = resources.files("decomposition.problems") / "data" / "sonnets.txt"
    _, text = source.read_text("ascii").split("William Shakespeare", 1)
    verses = re.sub(r"(?m)^[IVXLC]+$", "", text)
    return re.sub(r"[^a-z']+", " ", verses.lower()).strip()


def windows(text: str, length: int) -> tuple[Int[np.ndarray, "n T"], Int[np.ndarray, " n"]]:
    """``length`` tokens and the one after them, in windows that share no character.

    A window whose tokens have occurred before is left out: no two rows are equal.
    """
    token = {character: place for place, character in enumerate(ALPHABET)}
    tokens = np.array([token[character] for character in text])
    rows = tokens[: len(tokens) // (length + 1) * (length + 1)].reshape(-1, length + 1)
    _, first = np.unique(rows[:, :-1], axis=0, return_index=True)
    rows = rows[np.sort(first)]
    return rows[:, :-1], rows[:, -1]
