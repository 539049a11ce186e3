"""Shakespeare's sonnets as characters: the text that ships with the package."""

from __future__ import annotations

import re
from importlib import resources

import numpy as np
from jaxtyping import Int

ALPHABET = " abcdefghijklmnopqrstuvwxyz'"
"""Characters by their token."""


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
