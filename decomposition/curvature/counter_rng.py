"""Counter-based uniform numbers: row n of a stream is the same whoever asks, in whichever batch.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

WORDS = 4
"""64-bit words that Philox makes of one value of its counter."""
STREAM = 0x1ABE1
"""Keeps these streams apart from others of the same seed."""


def uniforms(key: tuple[int, int], first: int, rows: int, width: int) -> Float[Tensor, "rows w"]:
    """Rows ``first`` … ``first + rows − 1`` of the stream ``key``, uniform in the open (0, 1).

    Each row has whole counters of its own, so a row is reached without making those before it.
    """
    seed, draw = key
    counters = -(-width // WORDS)
    stream = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(STREAM, draw)))
    stream.advance(first * counters)
    words = stream.random_raw(rows * counters * WORDS).reshape(rows, -1)[:, :width]
    return torch.from_numpy(((words >> np.uint64(11)) + 0.5) * 2.0**-53)
