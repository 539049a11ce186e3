"""A bank slow enough to be interrupted: ``python -m tests.retraining.interrupted FOLDER``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from decomposition.problem import Problem
from decomposition.retraining import Bank, BankPlan, retrain_bank
from tests.cases import CASES
from tests.retraining.plain import RECIPE, with_recipe

PLAN = BankPlan(masks=20, second_order_masks=4)
CHUNK = 2
CHUNKS = (PLAN.masks + PLAN.second_order_masks) // CHUNK


def problem() -> Problem:
    return with_recipe(CASES["gelu"](), replace(RECIPE, epochs=40)).trained()


def bank(folder: Path | None) -> Bank:
    return retrain_bank(problem(), PLAN, folder, chunk_size=CHUNK, progress=False)


if __name__ == "__main__":
    bank(Path(sys.argv[1]))
