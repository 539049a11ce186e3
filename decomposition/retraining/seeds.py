"""Counter-based seeds: every random choice is a function of its own coordinates.

A choice is keyed by (seed, what it is for, its coordinates), never by what was drawn before it,
so that a cell of the bank is the same whatever was computed earlier, elsewhere or in which
chunks. Streams are Philox, permutations are argsorts of raw 64-bit words, which do not tie: both
are fixed by NumPy's stream-compatibility policy, which ``Generator.permutation`` is not.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, UInt64

ORDER, MASK, INITIAL, CELL_ORDER, AUDIT = range(5)


def words(seed: int, *counter: int, size: int) -> UInt64[np.ndarray, " size"]:
    """Random words that depend on (seed, counter) alone."""
    # spawn_key keeps (seed, 1) and (seed, 1, 0) apart, which plain entropy would not
    sequence = np.random.SeedSequence(seed, spawn_key=counter)
    return np.random.Philox(sequence).random_raw(size)


def permutation(seed: int, *counter: int, size: int) -> Int64[np.ndarray, " size"]:
    """A uniform permutation of 0 … size−1 that depends on (seed, counter) alone."""
    return np.argsort(words(seed, *counter, size=size))


def epoch_order(seed: int, repeat: int, epoch: int, examples: int) -> Int64[np.ndarray, " N"]:
    """Order of examples of one epoch, shared by the base model and every retrained model."""
    return permutation(seed, ORDER, repeat, epoch, size=examples)


def cell_order(
    seed: int, mask: int, repeat: int, epoch: int, kept: Bool[np.ndarray, " N"]
) -> Int64[np.ndarray, " n"]:
    """Order of one epoch of one independently trained cell (mask, repeat): of the ``kept``
    examples, as they stand in a permutation of all."""
    found = words(seed, CELL_ORDER, mask, repeat, epoch, size=len(kept))
    places = np.flatnonzero(kept)
    return places[np.argsort(found[places])]


def initial_seed(seed: int, mask: int, repeat: int) -> int:
    """Seed below 2⁶³ for the initialisation of cell (mask, repeat)."""
    sequence = np.random.SeedSequence(seed, spawn_key=(INITIAL, mask, repeat))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def subset_masks(
    seed: int, start: int, stop: int, kept: int, examples: int
) -> Bool[np.ndarray, "M N"]:
    """Masks start … stop−1, uniform without replacement: True marks the ``kept`` examples.

    Mask j has its own counter, so a longer bank begins with the masks of a shorter one.
    """
    masks = np.zeros((stop - start, examples), dtype=bool)
    for row, mask in zip(masks, range(start, stop), strict=True):
        row[permutation(seed, MASK, mask, size=examples)[:kept]] = True
    return masks
