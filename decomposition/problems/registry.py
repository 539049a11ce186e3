"""Find a problem by name: built in, in a data file, or in a Python file of the user's own."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decomposition.errors import DecompositionError, ProblemError
from decomposition.losses import CrossEntropy
from decomposition.problem import Problem
from decomposition.problems import bundled, chars, csv_file, idx, mnist, npz
from decomposition.problems.data_files import PERCEPTRON, file_problem
from decomposition.problems.known_truth import linear_gaussian, teacher
from decomposition.problems.options import (
    COMMON,
    RECIPE,
    VARIANT,
    Spec,
    parse,
    recipe_of,
    variant_of,
)
from decomposition.problems.table import Defaults, Table
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

BUILT_IN: dict[str, Callable[..., Problem]] = {
    make.__name__: make
    for make in (
        bundled.digits,
        bundled.breast_cancer,
        bundled.wine,
        bundled.diabetes,
        linear_gaussian,
        teacher,
        bundled.digits_cnn,
        chars.chars,
        bundled.digits_resnet,
        mnist.mnist_mlp,
    )
}
"""Name → function of seed, recipe, quick, variant, and of its own options."""
EXAMPLES = (
    "digits?hidden=16&activation=tanh&epochs=100",
    "teacher?label_noise=0.2&examples=400",
    "chars?hidden=8&length=12&examples=1000",
    "mnist_mlp?folder=mnist/",
    "idx:mnist/?pool=2&examples=2000",
    "csv:abalone.data?target=last&task=regression",
    "npz:mine.npz?x=features&y=labels",
)
"""How problems are named on the command line."""

OWN_OPTIONS: dict[str, Mapping[str, str]] = {
    "digits_cnn": bundled.CNN_OPTIONS,
    "chars": chars.OPTIONS,
    "digits_resnet": bundled.RESNET_OPTIONS,
    "mnist_mlp": mnist.OPTIONS,
}
"""Name → options of that problem alone, or with a meaning of their own there."""


@dataclass(frozen=True)
class FileKind:
    """Data files of one format, named ``kind:PATH?option=value``."""

    read: Callable[[Spec, str], Table]
    options: Mapping[str, str]
    """Name → meaning, beside those that every problem takes."""
    usage: str
    defaults: Defaults = PERCEPTRON


FILES: dict[str, FileKind] = {
    "idx": FileKind(idx.idx_table, idx.OPTIONS, "idx:FOLDER", idx.DEFAULTS),
    "csv": FileKind(csv_file.csv_table, csv_file.OPTIONS, "csv:FILE?target=COLUMN"),
    "npz": FileKind(npz.npz_table, npz.OPTIONS, "npz:FILE"),
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
            ``?option=value&option=value``, or path/to/file.py:function, which returns a Problem and
            whose arguments are given likewise.
        seed: of everything that is random in making it; a function of the user's own is given one
            that is not 0, as an argument of this name.
        recipe: training recipe, instead of the problem's own and of options in the name.
        variant: changes to network and data; they go before options in the name.
        quick: a smaller network, for a first look.

    Raises:
        ProblemError: unknown name or option, missing or malformed file, a function that fails,
            or a variant of a user's function, which has none.
    """
    if _is_python(name):
        return _own(name, seed, recipe, variant)
    spec = parse(name)
    kind, colon, path = spec.name.partition(":")
    if spec.name in BUILT_IN:
        own = OWN_OPTIONS.get(spec.name, {})
        spec.check({**COMMON, **own})
        asked = variant_of(spec, variant)
        more = {option: _own_value(spec, option) for option in own.keys() - COMMON.keys()}
        problem = BUILT_IN[spec.name](seed=seed, recipe=recipe, variant=asked, quick=quick, **more)
    elif colon and kind in FILES:
        file_kind = FILES[kind]
        spec.check({**file_kind.options, **COMMON})
        if not path:
            raise ProblemError(f"{name!r} names no file: write {file_kind.usage}")
        asked, table = variant_of(spec, variant), file_kind.read(spec, path)
        problem = file_problem(spec, table, file_kind.defaults, seed, recipe, asked, quick)
    else:
        raise ProblemError(
            f"unknown problem {name!r}: use one of {', '.join(BUILT_IN)}, or file.py:function for "
            f"your own, or {', '.join(kind.usage for kind in FILES.values())} for data"
        )
    if recipe is None and spec.options.keys() & RECIPE.keys():
        problem = replace(problem, recipe=recipe_of(spec, problem.recipe))
    return problem


def _own_value(spec: Spec, option: str) -> int | str | None:
    """A folder's name, or a whole number."""
    return spec.options.get(option) if option == "folder" else spec.whole(option, None, least=1)


def load_problem(spec: str, seed: int = 0, quick: bool = False) -> Problem:
    """Problem named ``spec``, as it is: ``make_problem`` without a recipe or variant.

    Raises:
        ProblemError: as ``make_problem``.
    """
    return make_problem(spec, seed, quick=quick)


def _is_python(name: str) -> bool:
    path, colon, _ = name.partition("?")[0].rpartition(":")
    return bool(colon) and path.endswith(".py")


def _own(name: str, seed: int, recipe: Recipe | None, variant: Variant | None) -> Problem:
    """Of a user's function; ``seed`` is an argument of it, if it takes one."""
    spec = parse(name)
    if variant not in (None, Variant()):
        raise ProblemError(
            f"{spec.name} is made by a function of your own, which takes no variant: vary it by "
            f"arguments, {spec.name}?width=16, or use one of {', '.join(BUILT_IN)} or a data file"
        )
    path, _, function = spec.name.rpartition(":")
    arguments = {key: plain_value(text) for key, text in spec.options.items()}
    if seed:
        arguments.setdefault("seed", seed)
    problem = python_problem(path, function, arguments)
    return problem if recipe is None else replace(problem, recipe=recipe)


def python_problem(path: str, name: str, arguments: Mapping[str, object] | None = None) -> Problem:
    """What the function ``name`` in the file ``path`` returns.

    Args:
        path: the file.
        name: of a function in it.
        arguments: its arguments, by name.

    Raises:
        ProblemError: missing file or function, arguments that it does not take, or a function that
            fails or returns something else.
    """
    function = python_function(f"{path}:{name}")
    try:
        inspect.signature(function).bind(**(arguments or {}))
    except TypeError as error:
        raise ProblemError(
            f"{path}:{name} does not take the arguments it was given ({error}); name them after a "
            f"question mark, as in {name}?argument=value"
        ) from None
    try:
        with _importable(Path(path).parent):
            problem = function(**(arguments or {}))
    except DecompositionError:
        raise
    except Exception as error:
        raise ProblemError(f"{path}:{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(problem, Problem):
        raise ProblemError(f"{path}:{name} must return a Problem, got {type(problem).__name__}")
    return problem


def python_function(spec: str) -> Callable[..., Any]:
    """The function that ``file.py:function`` names.

    Raises:
        ProblemError: missing file or function.
    """
    path, _, name = spec.rpartition(":")
    with _importable(Path(path).parent):
        function = getattr(_import_file(Path(path)), name, None)
    if not callable(function):
        raise ProblemError(f"{path} has no function {name!r}")
    return function


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


def plain_value(text: str) -> object:
    """An argument as written: a Python literal (a number, True, None, a tuple), else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def listing() -> str:
    """What ``decompose problems`` prints: sizes, task and a line for each; formats and options."""
    rows = [("name", "N", "queries", "P", "task", "")]
    rows += [_row(name, make_problem(name)) for name in BUILT_IN]
    lines = [
        f"{name:16} {n:>5} {q:>7} {p:>9}  {task:14}  {line}".rstrip()
        for name, n, q, p, task, line in rows
    ]
    for name, options in OWN_OPTIONS.items():
        lines += ["", f"{name} has options of its own:"]
        lines += [f"  {option:12} {meaning}" for option, meaning in options.items()]
    for kind in FILES.values():
        lines += ["", f"{kind.usage:22} {_first_line(kind.read.__doc__)}"]
        lines += [f"  {option:12} {meaning}" for option, meaning in kind.options.items()]
    lines += ["", "Every problem above takes these options, as ?option=value&option=value:"]
    lines += [f"  {option:12} {meaning}" for option, meaning in (VARIANT | RECIPE).items()]
    lines += ["", "Examples (quoted, because the shell reads ? and &):"]
    lines += [f"  decompose run '{example}' --out out/" for example in EXAMPLES]
    lines += ["", "Your own: decompose run file.py:function, where the function returns a Problem."]
    return "\n".join(lines)


def _row(name: str, problem: Problem) -> tuple[str, ...]:
    task = "classification" if isinstance(problem.query_loss, CrossEntropy) else "regression"
    sizes = (problem.num_examples, problem.num_queries, problem.num_parameters)
    return (name, *(f"{size:,}" for size in sizes), task, _first_line(BUILT_IN[name].__doc__))


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]
