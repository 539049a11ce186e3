"""``file.py:function``: a problem from a user's own Python file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from decomposition.errors import DecompositionError, ProblemError
from decomposition.problem import Problem


def python_problem(path: str, name: str) -> Problem:
    """What the function ``name`` in the file ``path`` returns; it takes no argument.

    Raises:
        ProblemError: missing file or function, or a function that fails or returns something
            else.
    """
    with _importable(Path(path).parent):
        module = _import_file(Path(path))
        function = getattr(module, name, None)
        if not callable(function):
            raise ProblemError(f"{path} has no function {name!r}")
        try:
            problem = function()
        except DecompositionError:
            raise
        except Exception as error:
            raise ProblemError(f"{path}:{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(problem, Problem):
        raise ProblemError(f"{path}:{name} must return a Problem, got {type(problem).__name__}")
    return problem


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a user's file import its neighbours, at its top or when its function runs."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # the file may have tidied up itself
            sys.path.remove(entry)


def _import_file(path: Path) -> object:
    if not path.is_file():
        raise ProblemError(f"no such file: {path}")
    # Named apart from every installed module, and registered: dataclasses look themselves up.
    name = f"_problem_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ProblemError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
