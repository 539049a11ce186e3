"""The key of a chunk covers all the code that trains it."""

import ast
from pathlib import Path

from decomposition.retraining.fingerprint import TRAINER
from decomposition.source import PACKAGE

CHECKED_ELSEWHERE = {"errors.py", "problem.py"}
"""A problem enters the key by its data, its model's outputs and its loss."""


def imported(path: Path) -> set[str]:
    """Modules of the package that a module imports, as paths inside the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("decomposition."):
            parts = str(node.module).split(".")[1:]
            names = ["/".join(parts), *("/".join([*parts, alias.name]) for alias in node.names)]
            found |= {f"{name}.py" for name in names if (PACKAGE / f"{name}.py").is_file()}
    return found


def test_every_module_behind_a_chunk_is_in_its_key() -> None:
    seen, todo = set(), ["retraining/cells.py"]
    while todo:
        part = todo.pop()
        if part not in seen | CHECKED_ELSEWHERE:
            seen.add(part)
            todo += imported(PACKAGE / part)
    assert seen == set(TRAINER)
