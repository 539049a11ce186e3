"""A bank to be interrupted: ``python -m tests.retraining.interrupted FOLDER [unfinished]``.

With ``unfinished`` it stops at its last chunk and waits, so that it cannot end before the signal.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from decomposition.problem import Problem
from decomposition.retraining import Bank, BankPlan, retrain_bank
from decomposition.retraining.store import SUFFIX, ChunkStore
from tests.cases import CASES
from tests.retraining.plain import RECIPE, with_recipe

PLAN = BankPlan(masks=20, second_order_masks=4)
CHUNK = 2
CHUNKS = (PLAN.masks + PLAN.second_order_masks) // CHUNK


def problem() -> Problem:
    return with_recipe(CASES["gelu"](), replace(RECIPE, epochs=40)).trained()


def bank(folder: Path | None) -> Bank:
    return retrain_bank(problem(), PLAN, folder, chunk_size=CHUNK, progress=False)


def stop_at_the_last_chunk() -> None:
    save = ChunkStore.save

    def saved(store: ChunkStore, key: str, array: np.ndarray) -> None:
        assert store.folder is not None
        if len(list(store.folder.glob(f"*{SUFFIX}"))) == CHUNKS - 1:
            time.sleep(600)
        save(store, key, array)

    ChunkStore.save = saved  # type: ignore[method-assign]


if __name__ == "__main__":
    if "unfinished" in sys.argv:
        stop_at_the_last_chunk()
    bank(Path(sys.argv[1]))
