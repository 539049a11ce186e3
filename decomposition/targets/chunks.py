"""Proximal responses in chunks: which examples are solved together, and where they are kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from decomposition.problem import Problem
from decomposition.retraining.fingerprint import study_fingerprint
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.store import ChunkStore
from decomposition.source import source_hash
from decomposition.targets.anderson import DEPTH

SOURCE = ("targets/anderson.py", "targets/pbrf.py", "targets/proximal.py")
"""The code, beside the losses, that a response depends on."""

CHUNK = 20
"""Examples that are solved, and kept on disk, together, at most."""
COPIES = 2 * DEPTH + 20
"""Numbers a parameter that the solution of one example takes: histories, points, gradients."""
NUMBERS = 2**27
"""Numbers that those solved together may take: 1 GB; of a million parameters, four examples."""


def together(parameters: int) -> int:
    """Examples that are solved together; sizes alone decide, for they name what is on disk."""
    return min(CHUNK, max(1, NUMBERS // (COPIES * parameters)))


def responses_left(
    problem: Problem,
    damping: float,
    removed: Int64[np.ndarray, " M"],
    weight: float = 1.0,
    folder: Path | None = None,
) -> int:
    """Examples whose responses are not in ``folder`` yet.

    Raises:
        StoreError: the folder cannot be used.
    """
    kept = KeptResponses(problem, damping, weight, folder)
    return sum(len(chunk) for chunk in chunks_of(problem, removed) if kept.load(chunk) is None)


def chunks_of(problem: Problem, removed: Int64[np.ndarray, " M"]) -> list[np.ndarray]:
    """The removed examples, those that are solved together side by side."""
    step = together(problem.num_parameters)
    return [removed[start : start + step] for start in range(0, len(removed), step)]


class KeptResponses:
    """Chunks of responses in a folder.

    Raises:
        StoreError: the folder cannot be used.
    """

    def __init__(
        self, problem: Problem, damping: float, weight: float, folder: Path | None
    ) -> None:
        """Open the folder; None keeps nothing."""
        self._store, self._study = ChunkStore(folder), _study(problem, damping, weight)

    def load(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Outputs and residuals, if they are there."""
        outputs, residual = (self._store.load(key) for key in self._keys(chunk))
        return None if outputs is None or residual is None else (outputs, residual)

    def save(self, chunk: np.ndarray, found: tuple[np.ndarray, np.ndarray]) -> None:
        """Write the outputs and residuals of a chunk."""
        for key, values in zip(self._keys(chunk), found, strict=True):
            self._store.save(key, values)

    def _keys(self, chunk: np.ndarray) -> list[str]:
        return [_key(self._study, what, chunk) for what in ("outputs", "residual")]


def _study(problem: Problem, damping: float, weight: float) -> str:
    """Hash of what all responses have in common; the trained parameters stand for the start."""
    theta = {name: value.detach() for name, value in problem.model.named_parameters()}
    facts = (
        study_fingerprint(problem, BankPlan(), theta),
        source_hash(*SOURCE),
        repr((damping, weight)),
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _key(study: str, what: str, removed: np.ndarray) -> str:
    return hashlib.sha256(f"{study} {what} {removed.tolist()}".encode()).hexdigest()
