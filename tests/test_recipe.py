"""Recipe: every value out of range is named, and the schedules are those of torch.optim."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from decomposition import DecompositionError, Recipe
from decomposition.errors import ProblemError

BAD = [
    ("optimizer", "rmsprop", "must be one of sgd, adam, adamw, got 'rmsprop'"),
    ("schedule", "linear", "must be one of constant, cosine"),
    ("dtype", "float16", "must be one of float32, float64"),
    ("lr", 0.0, r"must lie in \(0, inf\), got 0"),
    ("lr", -1.0, "got -1"),
    ("lr", math.nan, "got nan"),
    ("lr", math.inf, "got inf"),
    ("momentum", 1.0, r"must lie in \[0, 1\)"),
    ("momentum", -0.1, "got -0.1"),
    ("betas", (0.9, 1.0), "got 1.0"),
    ("betas", (0.9,), "a tuple of 2, got"),
    ("eps", 0.0, "got 0"),
    ("weight_decay", -1e-9, "got -1e-09"),
    ("epochs", -1, "whole number >= 0, got -1"),
    ("epochs", 1.5, "got 1.5"),
    ("epochs", math.nan, "got nan"),
    ("epochs", math.inf, "got inf"),
    ("checkpoint", -1, "whole number >= 0, got -1"),
    ("checkpoint", 21, "one of the 20 epochs, got 21"),
    ("batch_size", 0, "whole number >= 1, got 0"),
    ("drop_last", 1, "must be True or False, got 1"),
    ("seed", -1, "whole number >= 0"),
    ("seed", 0.5, "got 0.5"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_values_out_of_range_are_named(name: str, value: object, message: str) -> None:
    with pytest.raises(DecompositionError, match=rf"Recipe\.{name} .*{message}"):
        Recipe(**{name: value})


def test_every_field_has_a_bad_value_above() -> None:
    assert {name for name, _, _ in BAD} == {field.name for field in dataclasses.fields(Recipe)}


@given(total=st.integers(1, 200), lr=st.floats(1e-5, 10.0))
def test_cosine_schedule_is_that_of_torch(total: int, lr: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    recipe = Recipe(lr=lr, schedule="cosine")
    for step in range(min(total, 5)):
        expected = optimizer.param_groups[0]["lr"]
        assert recipe.learning_rate(step, total) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        schedule.step()
    assert Recipe(lr=lr).learning_rate(total - 1, total) == lr


@given(examples=st.integers(1, 1000), batch=st.integers(1, 1200), drop=st.booleans())
def test_batches_are_those_of_a_loader(examples: int, batch: int, drop: bool) -> None:
    recipe, rows = Recipe(batch_size=batch, drop_last=drop), torch.arange(examples)
    expected = list(DataLoader(rows, batch, drop_last=drop))
    if not expected:
        with pytest.raises(ProblemError, match=f"{examples} examples .*batch_size = {batch};"):
            recipe.batches(rows)
        return
    assert recipe.steps_per_epoch(examples) == len(expected)
    found = recipe.batches(rows.expand(2, -1))
    assert all(map(torch.equal, [part[1] for part in found], expected))
    assert len(found) == len(expected)
