"""Problems by name and from a user's file; everything that can be wrong with one is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from decomposition import Recipe
from decomposition.errors import ProblemError
from decomposition.problems import BUILT_IN, Variant, load_problem, make_problem

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn
from decomposition import Problem

@dataclass
class Size:
    n: int = 8

def make():
    import neighbour
    x = torch.linspace(-1, 1, 2 * Size().n)[:, None] * neighbour.SCALE
    y = (x[:, 0] > 0).long()
    return Problem(nn.Linear(1, 2), nn.CrossEntropyLoss(), (x[::2], y[::2]), (x[1::2], y[1::2]))

def broken():
    raise KeyError("weights.pt")

def refused():
    return Problem(nn.Linear(1, 2), nn.CrossEntropyLoss(), (torch.zeros(0, 1), []), None)

def nothing():
    pass

def needs(an_argument):
    pass

NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "neighbour.py").write_text("SCALE = 2.0\n")
    (tmp_path / "syntax.py").write_text("def make(:\n")
    (tmp_path / "imports.py").write_text("import a_package_that_is_not_there\n")
    return tmp_path


def test_a_function_in_a_file_may_use_its_neighbours_and_dataclasses(folder: Path) -> None:
    path = list(sys.path)
    problem = load_problem(f"{folder}/mine.py:make")
    assert (problem.num_examples, problem.num_queries) == (8, 8)
    assert sys.path == path
    del sys.modules["neighbour"]


def test_a_file_named_like_an_installed_module_does_not_replace_it(folder: Path) -> None:
    import json

    (folder / "json.py").write_text("def make():\n    return 1\n")
    with pytest.raises(ProblemError, match="must return a Problem, got int"):
        load_problem(f"{folder}/json.py:make")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "mnist",
            "unknown problem 'mnist': use one of digits, .*mnist_mlp, or file.py:function",
        ),
        ("mine.py", "unknown problem 'mine.py'"),
        ("{folder}/mine.txt:make", "file.py:function"),
        ("{folder}/absent.py:make", "no such file: .*absent.py"),
        ("{folder}/mine.py:absent", "mine.py has no function 'absent'"),
        ("{folder}/mine.py:", "mine.py has no function ''"),
        ("{folder}/mine.py:NUMBER", "has no function 'NUMBER'"),
        ("{folder}/mine.py:broken", "mine.py:broken failed: KeyError: 'weights.pt'"),
        (
            "{folder}/mine.py:needs",
            "needs does not take .*missing a required argument: 'an_argument'",
        ),
        ("{folder}/mine.py:refused", "targets must be a tensor or a NumPy array, got list"),
        ("{folder}/mine.py:nothing", "must return a Problem, got NoneType"),
        ("{folder}/syntax.py:make", "syntax.py cannot be imported: SyntaxError"),
        ("{folder}/imports.py:make", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        load_problem(spec.format(folder=folder))


def test_a_users_problem_takes_another_recipe_but_no_variant(folder: Path) -> None:
    name = f"{folder}/mine.py:make"
    recipe = Recipe(epochs=3, lr=0.5)
    assert make_problem(name, recipe=recipe, variant=Variant()).recipe == recipe
    with pytest.raises(ProblemError, match="made by a function of your own, which takes no varia"):
        make_problem(name, variant=Variant(examples=4))
    del sys.modules["neighbour"]


def test_a_negative_seed_is_refused_by_every_built_in_problem() -> None:
    for name in BUILT_IN:
        with pytest.raises(ProblemError, match="seed of a problem must be a whole number >= 0"):
            make_problem(name, -1)
