"""Find a problem by name, or in a user's file as ``file.py:function``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from decomposition.errors import DecompositionError, ProblemError
from decomposition.problem import Problem
from decomposition.problems.digits import digits
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

BUILT_IN: dict[str, Callable[..., Problem]] = {"digits": digits}


def make_problem(
    name: str,
    seed: int = 0,
    recipe: Recipe | None = None,
    variant: Variant | None = None,
    quick: bool = False,
) -> Problem:
    """Problem ``name``, built in or of a file, with a recipe and a variant of network and data.

    Raises:
        ProblemError: unknown name, or a variant of a problem that has none (a user's function).
    """
    if name in BUILT_IN:
        return BUILT_IN[name](seed=seed, recipe=recipe, variant=variant, quick=quick)
    problem = load_problem(name, seed, quick)
    if variant not in (None, Variant()):
        raise ProblemError(
            f"{name} is made by a function of your own, which takes no variant: vary it there, "
            f"or use one of {', '.join(BUILT_IN)}"
        )
    return problem if recipe is None else replace(problem, recipe=recipe)


def load_problem(spec: str, seed: int = 0, quick: bool = False) -> Problem:
    """Problem named ``spec``: a built-in name, or ``path/to/file.py:function``.

    The function takes no argument and returns a Problem; a built-in one gets ``seed``, and with
    ``quick`` is made smaller.

    Raises:
        ProblemError: unknown name, missing file or function, or a function that fails.
    """
    if spec in BUILT_IN:
        return BUILT_IN[spec](seed=seed, quick=quick)
    path, colon, name = spec.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ProblemError(
            f"unknown problem {spec!r}: use one of {', '.join(BUILT_IN)}, or file.py:function for "
            "your own"
        )
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
