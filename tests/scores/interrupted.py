"""Gradients to be interrupted: ``python -m tests.scores.interrupted FOLDER``.

It stops before its last chunk counts and waits, so that it cannot end before the signal.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.scores import stored
from decomposition.scores.stored import StoredGradients
from tests import cases

CHUNKS = 60


def problem() -> Problem:
    return cases.classification(mlp((4, 6, 3), cases.nn.Tanh, 0), n=CHUNKS)


def gradients(folder: Path) -> StoredGradients:
    """One example a chunk."""
    stored.CHUNK_NUMBERS = 1
    return StoredGradients(problem(), folder, "float64")


def finished(folder: Path) -> int:
    """Chunks in the record."""
    found = list(folder.glob("*.json"))
    return len(json.loads(found[0].read_bytes())["checksums"]) if found else 0


def stop_before_the_last_chunk(folder: Path) -> None:
    write = stored.write_atomically

    def written(path: Path, content: bytes) -> None:
        if finished(folder) == CHUNKS - 1:
            time.sleep(600)
        write(path, content)

    stored.write_atomically = written


if __name__ == "__main__":
    stop_before_the_last_chunk(Path(sys.argv[1]))
    gradients(Path(sys.argv[1]))
