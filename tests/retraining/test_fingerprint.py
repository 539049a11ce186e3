"""The key of a chunk covers all the code that trains it."""

from decomposition.retraining.fingerprint import TRAINER
from decomposition.source import import_closure

CHECKED_ELSEWHERE = frozenset({"errors.py", "problem.py", "retraining/__init__.py"})
"""A problem enters the key by its data, its model's outputs and its loss."""


def test_every_module_behind_a_chunk_is_in_its_key() -> None:
    assert set(import_closure("retraining/cells.py", CHECKED_ELSEWHERE)) == set(TRAINER)
