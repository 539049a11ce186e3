"""What ``decompose problems`` says is so."""

from __future__ import annotations

import re

import pytest

from decomposition.problems import BUILT_IN, make_problem
from decomposition.problems.options import COMMON, parse
from decomposition.problems.registry import EXAMPLES, FILES, OWN_OPTIONS, listing


@pytest.fixture(scope="module")
def text() -> str:
    return listing()


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_every_problem_is_listed_with_its_sizes_and_task(text: str, name: str) -> None:
    problem = make_problem(name)
    task = "regression" if problem.loss_function.name == "mse" else "classification"
    sizes = rf"{problem.num_examples:,} +{problem.num_queries} +{problem.num_parameters:,}"
    pattern = rf"^{name} +{sizes} +{task} "
    assert re.search(pattern, text, re.MULTILINE)


def test_every_format_and_option_is_explained(text: str) -> None:
    for kind in FILES.values():
        assert kind.usage in text
    for options in (COMMON, *OWN_OPTIONS.values(), *(kind.options for kind in FILES.values())):
        for option in options:
            assert re.search(rf"^  {option} +\S", text, re.MULTILINE)
    assert "file.py:function" in text


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_use_options_that_exist(text: str, example: str) -> None:
    spec = parse(example)
    kind = spec.name.partition(":")[0]
    own = FILES[kind].options if kind in FILES else OWN_OPTIONS.get(kind, {})
    spec.check({**own, **COMMON})
    assert f"'{example}'" in text
