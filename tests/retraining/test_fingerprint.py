"""The key of a chunk covers all the code that trains it."""

from decomposition.retraining.fingerprint import CHECKED_ELSEWHERE, trainer_code
from decomposition.source import import_closure

MODULES = ("audit", "cells", "initial", "plan", "seeds", "stacks", "trainer", "trial")
LOSSES = ("base", "cross_entropy", "custom", "mean_squared_error", "weighted")
ROOT = ("elementary.py", "inputs.py", "memory.py", "recipe.py")


def test_every_module_behind_a_chunk_is_in_its_key() -> None:
    trains = {f"retraining/{name}.py" for name in MODULES}
    assert set(trainer_code()) >= {*trains, *(f"losses/{name}.py" for name in LOSSES), *ROOT}


def test_nothing_but_the_problem_is_left_out_of_the_key() -> None:
    """A problem enters the key by its data, its model's outputs and its loss."""
    assert {"errors.py", "problem.py", "retraining/__init__.py"} == CHECKED_ELSEWHERE
    inside = set(trainer_code())
    beyond = set(import_closure("retraining/cells.py")) - inside - CHECKED_ELSEWHERE
    assert all(part in import_closure("problem.py") for part in beyond)
