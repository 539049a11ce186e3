"""Find a problem by name: built in, in a data file, or in a Python file of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems import chars, csv_file, digits_cnn, digits_resnet, idx, npz
from decomposition.problems.breast_cancer import breast_cancer
from decomposition.problems.changes import COMMON, RECIPE, recipe_of, variant_of
from decomposition.problems.diabetes import diabetes
from decomposition.problems.digits import digits
from decomposition.problems.linear_gaussian import linear_gaussian
from decomposition.problems.options import Spec, parse
from decomposition.problems.python_file import python_problem
from decomposition.problems.teacher import teacher
from decomposition.problems.variant import Variant
from decomposition.problems.wine import wine
from decomposition.recipe import Recipe

BUILT_IN: dict[str, Callable[..., Problem]] = {
    make.__name__: make
    for make in (
        digits,
        breast_cancer,
        wine,
        diabetes,
        linear_gaussian,
        teacher,
        digits_cnn.digits_cnn,
        chars.chars,
        digits_resnet.digits_resnet,
    )
}
"""Name → function of seed, recipe, quick, variant, and of its own options."""

OWN_OPTIONS: dict[str, Mapping[str, str]] = {
    "digits_cnn": digits_cnn.OPTIONS,
    "chars": chars.OPTIONS,
    "digits_resnet": digits_resnet.OPTIONS,
}
"""Name → options of that problem alone, or with a meaning of their own there."""


@dataclass(frozen=True)
class FileKind:
    """Data files of one format, named ``kind:PATH?option=value``."""

    make: Callable[[Spec, str, int, Recipe | None, Variant, bool], Problem]
    options: Mapping[str, str]
    """Name → meaning, beside those that every problem takes."""
    usage: str


FILES: dict[str, FileKind] = {
    "idx": FileKind(idx.idx_problem, idx.OPTIONS, "idx:FOLDER"),
    "csv": FileKind(csv_file.csv_problem, csv_file.OPTIONS, "csv:FILE?target=COLUMN"),
    "npz": FileKind(npz.npz_problem, npz.OPTIONS, "npz:FILE"),
}
"""Formats of data files."""


def make_problem(
    name: str,
    seed: int = 0,
    recipe: Recipe | None = None,
    variant: Variant | None = None,
    quick: bool = False,
) -> Problem:
    """Problem ``name`` with a recipe and a variant of its network and data.

    Args:
        name: a built-in name, idx:FOLDER, csv:FILE or npz:FILE, all with options in the form
            ``?option=value&option=value``, or path/to/file.py:function (which takes no argument,
            and returns a Problem).
        seed: of everything that is random in making it (not for a function of the user's own).
        recipe: training recipe, instead of the problem's own and of options in the name.
        variant: changes to network and data; they go before options in the name.
        quick: a smaller network, for a first look.

    Raises:
        ProblemError: unknown name or option, missing or malformed file, a function that fails,
            or a variant of a user's function, which has none.
    """
    if _is_python(name):
        return _own(name, recipe, variant)
    spec = parse(name)
    kind, colon, path = spec.name.partition(":")
    if spec.name in BUILT_IN:
        own = OWN_OPTIONS.get(spec.name, {})
        spec.check({**COMMON, **own})
        asked = variant_of(spec, variant)
        sizes = {name: spec.whole(name, None, least=1) for name in own.keys() - COMMON.keys()}
        problem = BUILT_IN[spec.name](seed=seed, recipe=recipe, variant=asked, quick=quick, **sizes)
    elif colon and kind in FILES:
        file_kind = FILES[kind]
        spec.check({**file_kind.options, **COMMON})
        if not path:
            raise ProblemError(f"{name!r} names no file: write {file_kind.usage}")
        problem = file_kind.make(spec, path, seed, recipe, variant_of(spec, variant), quick)
    else:
        raise ProblemError(
            f"unknown problem {name!r}: use one of {', '.join(BUILT_IN)}, or file.py:function for "
            f"your own, or {', '.join(kind.usage for kind in FILES.values())} for data"
        )
    if recipe is None and spec.options.keys() & RECIPE.keys():
        problem = replace(problem, recipe=recipe_of(spec, problem.recipe))
    return problem


def load_problem(spec: str, seed: int = 0, quick: bool = False) -> Problem:
    """Problem named ``spec``, as it is: ``make_problem`` without a recipe or variant.

    Raises:
        ProblemError: as ``make_problem``.
    """
    return make_problem(spec, seed, quick=quick)


def _is_python(name: str) -> bool:
    path, colon, _ = name.rpartition(":")
    return bool(colon) and path.endswith(".py")


def _own(name: str, recipe: Recipe | None, variant: Variant | None) -> Problem:
    if variant not in (None, Variant()):
        raise ProblemError(
            f"{name} is made by a function of your own, which takes no variant: vary it there, or "
            f"use one of {', '.join(BUILT_IN)} or a data file"
        )
    path, _, function = name.rpartition(":")
    problem = python_problem(path, function)
    return problem if recipe is None else replace(problem, recipe=recipe)
