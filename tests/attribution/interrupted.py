"""Gradients slow enough to be interrupted: ``python -m tests.attribution.interrupted FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from decomposition.attribution import stored
from decomposition.attribution.stored import StoredGradients
from decomposition.problem import Problem
from decomposition.problems.digits import mlp
from tests import cases

CHUNKS = 60


def problem() -> Problem:
    return cases.classification(mlp((4, 6, 3), cases.nn.Tanh, 0), n=CHUNKS)


def gradients(folder: Path) -> StoredGradients:
    """One example a chunk."""
    stored.CHUNK_NUMBERS = 1
    return StoredGradients(problem(), folder, "float64")


if __name__ == "__main__":
    gradients(Path(sys.argv[1]))
