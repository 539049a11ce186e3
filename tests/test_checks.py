"""Every choice of a user's is checked for its type too, and comes back as plain Python."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from decomposition import DecompositionError, Problem, Recipe, Settings
from decomposition.checks import Rule, Unfit, number, shown, whole
from decomposition.problem import RULES as PROBLEM_RULES
from decomposition.problems import Variant
from decomposition.retraining import BankPlan
from decomposition.spectrum.command import Inspection
from decomposition.spectrum.quadrature import Estimation
from decomposition.study.cell import Cell
from decomposition.study.executors import Backend


def problem(**changes: object) -> Problem:
    x, y = torch.eye(4), torch.arange(4) % 2
    return Problem(nn.Linear(4, 2), nn.CrossEntropyLoss(), (x, y), (x + 1, y), **changes)  # type: ignore[arg-type]


OWNERS: dict[str, Callable[..., object]] = {
    kind.__name__: kind
    for kind in (Recipe, Settings, BankPlan, Variant, Inspection, Estimation, Backend, Cell)
}
FIELDS = [(name, field.name) for name, kind in OWNERS.items() for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
FIELDS += [("Problem", name) for name in PROBLEM_RULES if name not in ("model", "initial")]


class Odd:
    """Equal to everything, with no words for itself."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        raise RuntimeError


NEVER = st.one_of(
    st.builds(Odd),
    st.just(math.nan),
    st.just(1j),
    st.just(10**5000),
    st.just(b"\xff\x00"),
    st.just(torch.ones(2, 3)),
    st.just(torch.empty(0, device="meta")),
    st.just(np.array(["a", None], dtype=object)),
    st.just(np.datetime64("2020-01-01")),
    st.just({1, 2}),
    st.dictionaries(st.integers(), st.integers(), min_size=1).map(lambda d: {"x": {1, *d}}),
    st.lists(st.just(object()), min_size=1),
    st.just(Recipe),
    st.just(lambda: 1),
)
"""Values that no field takes."""


@pytest.mark.parametrize(("owner", "field"), FIELDS)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(value=NEVER)
def test_values_of_the_wrong_type_are_named(owner: str, field: str, value: object) -> None:
    make = OWNERS.get(owner, problem)
    with pytest.raises(DecompositionError, match=field) as caught:
        make(**{field: value})
    assert len(str(caught.value)) < 300


WRONG = [
    (Recipe, "lr", "0.1", r"Recipe\.lr must be a number in \(0, inf\), got '0\.1'"),
    (Recipe, "lr", True, "lr must be a number in .* got True"),
    (Recipe, "weight_decay", True, "weight_decay must be a number"),
    (Recipe, "betas", 5, "betas must be a tuple of 2, got 5"),
    (Recipe, "betas", "ab", "betas must be a tuple of 2, got 'ab'"),
    (Recipe, "betas", (0.9, None), r"betas must be a number in \[0, 1\), got None"),
    (Recipe, "epochs", 2.0, "epochs must be a whole number >= 0, got 2.0"),
    (Recipe, "epochs", None, "epochs must be a whole number >= 0, got None"),
    (Recipe, "seed", 2**70, r"seed must be a whole number below 2\^63, got 1180"),
    (Recipe, "seed", 1.0, "seed must be a whole number >= 0, got 1.0"),
    (Recipe, "dtype", torch.float32, "dtype must be one of float32, float64, got torch.float32"),
    (Settings, "masks", "100", "masks must be a whole number >= 2, got '100'"),
    (Settings, "masks", 100.5, "masks must be a whole number >= 2, got 100.5"),
    (Settings, "damping_points", math.nan, "damping_points must be a whole number >= 3, got nan"),
    (Settings, "lattice", 1, "lattice must be True or False, got 1"),
    (Settings, "device", None, "device must be a string, got None"),
    (BankPlan, "masks", True, r"BankPlan\.masks must be a whole number >= 2, got True"),
    (Variant, "hidden", 16, "hidden must be a tuple, got 16"),
    (Variant, "hidden", "16", "hidden must be a tuple, got '16'"),
    (Cell, "recipe", {}, "recipe must be a Recipe, got dict"),
    (problem, "name", 3, "name must be a string, got 3"),
    (problem, "allow_query_in_train", "no", "allow_query_in_train must be True or False"),
    (problem, "recipe", "adam", "recipe must be a Recipe, got str"),
    (problem, "display", {"image_shape": (2, 2.0)}, "display must be a whole number >= 1, got 2"),
    (problem, "display", {"a": torch}, "display must hold what JSON can say"),
    (problem, "initial", [1], "initial must be a Mapping, got list"),
]


@pytest.mark.parametrize(("make", "field", "value", "message"), WRONG)
def test_what_a_field_takes_is_said(
    make: Callable[..., object], field: str, value: object, message: str
) -> None:
    with pytest.raises(DecompositionError, match=message):
        make(**{field: value})


@pytest.mark.parametrize("box", [np.float32, np.float64, np.array, torch.tensor])
def test_numbers_in_boxes_become_plain(box: Callable[[float], object]) -> None:
    recipe = Recipe(lr=box(0.5), epochs=np.int64(3), betas=[0, np.float32(0.5)])  # type: ignore[arg-type]
    assert (recipe.lr, recipe.epochs, recipe.betas) == (0.5, 3, (0.0, 0.5))
    assert [type(v) for v in (recipe.lr, recipe.epochs, *recipe.betas)] == [
        float,
        int,
        float,
        float,
    ]
    assert recipe == Recipe(lr=0.5, epochs=3, betas=(0.0, 0.5))


def test_a_display_becomes_what_json_says() -> None:
    assert problem(display={"image_shape": np.array([2, 2])}).display == {"image_shape": [2, 2]}


def taken(rule: Rule, value: object, refused: list[Unfit]) -> float:
    try:
        return rule(value)
    except Unfit as unfit:
        refused.append(unfit)
        return math.nan


ANY = st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none(), st.fractions())


@pytest.mark.parametrize("rule", [number(0, 1), number(0, above=True), whole(2), whole(bits=63)])
@settings(deadline=None, max_examples=100, derandomize=True)
@given(value=ANY)
def test_what_a_rule_takes_is_the_same_number(rule: Rule, value: object) -> None:
    refused: list[Unfit] = []
    found = taken(rule, value, refused)
    if refused:
        assert shown(value) in str(refused[0])
        return
    assert type(found) in (int, float)
    assert math.isfinite(found)
    assert found == pytest.approx(float(value), rel=1e-15, abs=0)  # type: ignore[arg-type]
