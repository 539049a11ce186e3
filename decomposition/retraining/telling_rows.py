"""Rows that tell a right stack from a wrong one: together they hold what values can differ in.

A branch of a model may hang on a token, on which positions are zero or masked, or on a sign: a few
rows from the start of the data may hold none of it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from decomposition.inputs import Inputs, parts_of, rows_in

TOKENS = 16
"""Rows that are chosen for whole numbers, rare ones first, at most."""
PATTERNS = 8
"""Rows that are chosen for what is zero or false in them, from the fullest to the emptiest."""


def telling_rows(x: Inputs, least: int) -> Int64[Tensor, " n"]:
    """``least`` rows from the start and further ones, for every part of the inputs:

    - whole numbers: a row for each value, as far as ``TOKENS`` rows hold them;
    - all: rows with different patterns of zeros, ``PATTERNS`` of them;
    - numbers: those with the smallest and the largest entry.

    The first rows are repeated where there are fewer than ``least``.
    """
    chosen: list[int] = []
    for part in parts_of(x).values():
        values = part.detach().flatten(1).cpu().numpy() if part.ndim > 1 else _column(part)
        if not values.size:
            continue
        if part.is_floating_point():
            chosen += [int(values.min(1).argmin()), int(values.max(1).argmax())]
        elif part.dtype != torch.bool:
            chosen += _covering(values)
        chosen += _patterns(values == 0)
    first = [row % rows_in(x) for row in range(least)]
    return torch.tensor([*first, *(row for row in dict.fromkeys(chosen) if row not in first)])


def _column(part: Tensor) -> np.ndarray:
    return part.detach()[:, None].cpu().numpy()


def _covering(values: np.ndarray) -> list[int]:
    """Rows that hold as many different values as they can, rare values first."""
    distinct, first, counts = np.unique(values, return_index=True, return_counts=True)
    chosen: list[int] = []
    seen: set = set()
    for place in np.argsort(counts, kind="stable"):
        if len(chosen) == TOKENS:
            break
        if distinct[place] not in seen:
            row = int(first[place]) // values.shape[1]
            chosen.append(row)
            seen.update(values[row].tolist())
    return chosen


def _patterns(zeros: Bool[np.ndarray, "N F"]) -> list[int]:
    """Rows of different patterns, evenly from those with the fewest zeros to those with most."""
    _, first = np.unique(np.packbits(zeros, axis=1), axis=0, return_index=True)
    first = first[np.argsort(zeros[first].sum(1), kind="stable")]
    picks = np.linspace(0, len(first) - 1, min(PATTERNS, len(first))).round().astype(int)
    return [int(row) for row in first[picks]]
