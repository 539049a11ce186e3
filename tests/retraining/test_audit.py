"""A wrong stack is found: by the trial where values tell, by the audit where none does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.problem import Problem
from decomposition.retraining import BankPlan, retrain_bank, seeds
from decomposition.retraining.audit import MOST, audited_cells
from decomposition.retraining.trial import PATTERNS, TOKENS, choose_way, telling_rows
from tests import general
from tests.models import Applied
from tests.retraining.plain import RECIPE, train_plain, untrained_start
from tests.retraining.test_bank import plain_outputs

PLAN = BankPlan(masks=4, second_order_masks=0)
RECIPES = {
    "float64": replace(RECIPE, epochs=4),
    "float32": replace(RECIPE, epochs=4, dtype="float32"),
    "adam": replace(RECIPE, epochs=4, optimizer="adam", lr=0.01, weight_decay=0.01),
}


class HiddenBranch(nn.Module):
    """Where ``flag`` holds, a softmax over dimension 1: wrong on stacked inputs (M, B, …)."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        flag = (x[..., :1] > self.low) & (x[..., :1] < self.high)
        return self.second(torch.where(flag, 4 * h.softmax(1), h))


def hidden(low: float, high: float, late: float, recipe: str) -> Problem:
    """The first feature is between −1 and 1, in late rows ``late``."""
    torch.manual_seed(0)
    x = general.normal(40, 4).tanh()
    x[:, 0] = torch.linspace(-1, 1, 40)
    x[x[:, 0].abs() < 0.1, 0] = 0.2
    x[20:30:2, 0] = late
    y = torch.arange(40) % 3
    model = HiddenBranch(low, high).double()
    return Problem(
        model, nn.CrossEntropyLoss(), (x[:30], y[:30]), (x[30:], y[30:]), RECIPES[recipe]
    )


def test_a_branch_on_zeros_in_late_rows_is_tried() -> None:
    one = hidden(-1e-9, 1e-9, 0.0, "float64")
    assert choose_way(one.model, one.train[0][:20]) == "direct"
    assert choose_way(one.model, one.train[0]) == "vmapped"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_wrong_stack_that_no_trial_saw_is_an_error(recipe: str, tmp_path: Path) -> None:
    """Neither zeros nor extremes: the rows where the branch is taken look like all others."""
    one = hidden(0.04, 0.06, 0.05, recipe)
    assert choose_way(one.model, one.train[0]) == "direct"
    trained = replace(one, initial=untrained_start(one))
    message = r"the model of mask \d \(repeat 0\) differs .* plain torch.*on examples .*its outputs"
    with pytest.raises(UnsupportedModelError, match=message):
        retrain_bank(trained, PLAN, tmp_path, chunk_size=4, progress=False)
    assert not list(tmp_path.iterdir())  # nothing wrong is kept


@pytest.mark.parametrize("recipe", RECIPES)
def test_right_stacks_pass(recipe: str) -> None:
    one = hidden(2.0, 3.0, 0.05, recipe).trained()
    plan = BankPlan(masks=4, repeats=2, randomness="independent")
    assert np.isfinite(retrain_bank(one, plan, progress=False, checkpoints=[0, 2]).outputs).all()


def test_chunks_on_disk_are_not_trained_again(tmp_path: Path) -> None:
    one = hidden(2.0, 3.0, 0.05, "float64").trained()
    first = retrain_bank(one, PLAN, tmp_path, chunk_size=2, progress=False)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = retrain_bank(one, PLAN, tmp_path, chunk_size=2, progress=False)
    np.testing.assert_array_equal(first.outputs, again.outputs)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps


@pytest.mark.parametrize(("masks", "cells"), [(2, 1), (100, 1), (101, 2), (10_000, MOST)])
def test_the_sample_is_drawn_by_the_plan(masks: int, cells: int) -> None:
    plan = BankPlan(masks=masks, second_order_masks=0)
    found = audited_cells(plan)
    assert len(found) == cells
    assert found == audited_cells(replace(plan))
    assert all(0 <= mask < masks and repeat == 0 for mask, repeat in found)


def test_rows_that_tell_hold_every_token_and_every_mask() -> None:
    tokens = torch.ones(50, 3, dtype=torch.long)
    tokens[40, 1], tokens[41, 2], tokens[42:, 0] = 7, 9, 5
    masks = torch.ones(50, 3, dtype=torch.bool)
    masks[30, 2] = masks[45, 0] = False
    numbers = general.normal(50, 2).clamp(-2, 2)
    numbers[33, 1] = 5.0
    rows = set(telling_rows({"t": tokens, "m": masks, "x": numbers}, 6).tolist())
    assert {0, 1, 2, 3, 4, 5, 40, 41, 30, 45, 33} <= rows
    assert rows & set(range(42, 50))
    assert len(rows) <= 6 + TOKENS + 3 * PATTERNS + 2


@st.composite
def small_problems(draw: st.DrawFn) -> Problem:
    """Tokens with padding through an embedding, a body drawn at random, and a head."""
    vocabulary, width = draw(st.integers(3, 6)), 4
    length = draw(st.integers(2, 4))
    padding = draw(st.one_of(st.none(), st.integers(-vocabulary, vocabulary - 1)))
    body = draw(st.sampled_from(["linear", "conv", "attention", "encoder", "norm", "branch"]))
    tied, bag = draw(st.booleans()), draw(st.booleans())
    seed = draw(st.integers(0, 1000))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        token = nn.Embedding(vocabulary, width, padding_idx=padding)
        nn.init.normal_(token.weight)
        parts = {
            "linear": lambda: nn.Linear(width, width),
            "conv": lambda: nn.Conv1d(width, width, 3, padding=1),
            "attention": lambda: nn.MultiheadAttention(width, 2, batch_first=True),
            "encoder": lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(width, 2, 5, 0.0, batch_first=True), 1
            ),
            "norm": lambda: nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)),
            "branch": lambda: nn.Linear(width, width),
        }
        head = nn.Linear(width, vocabulary)
        if tied:
            head.weight = token.weight
        extra = {}
        if bag:
            extra["bag"] = nn.EmbeddingBag(vocabulary, width, mode="sum", padding_idx=padding)
        model = Applied(FORWARDS[body], token=token, body=parts[body](), out=head, **extra).double()
        x = torch.randint(0, vocabulary, (24, length))
        if padding is not None:
            late = draw(st.integers(0, 18))
            x[late:, 1:][torch.rand(24 - late, length - 1) < 0.5] = padding % vocabulary
        x[:, 0] = torch.randint(1, vocabulary, (24,))
    y = torch.arange(24) % vocabulary
    model.padding = None if padding is None else padding % vocabulary
    return Problem(
        model, nn.CrossEntropyLoss(), (x[:18], y[:18]), (x[18:], y[18:]),
        replace(RECIPE, batch_size=4, epochs=2), allow_query_in_train=True,
    )  # fmt: skip


def real(model: nn.Module, x: Tensor) -> Tensor:
    padded = x == model.padding if model.padding is not None else torch.zeros_like(x).bool()
    return ~(padded & (torch.arange(x.shape[1]) > 0))  # the first is always read


def pooled(model: nn.Module, x: Tensor, h: Tensor) -> Tensor:
    h = (torch.tanh(h) * real(model, x)[..., None]).sum(1)
    return model.out(h + model.bag(x) if hasattr(model, "bag") else h)


FORWARDS = {
    "linear": lambda m, x: pooled(m, x, m.body(m.token(x))),
    "norm": lambda m, x: pooled(m, x, m.body(m.token(x))),
    "conv": lambda m, x: pooled(m, x, m.body(m.token(x).mT).mT),
    "attention": lambda m, x: pooled(
        m, x, m.body(*[m.token(x)] * 3, key_padding_mask=~real(m, x), need_weights=False)[0]
    ),
    "encoder": lambda m, x: pooled(m, x, m.body(m.token(x), src_key_padding_mask=~real(m, x))),
    "branch": lambda m, x: pooled(
        m, x, torch.where((x > 1)[..., None], m.body(m.token(x)), m.token(x).sin())
    ),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(small_problems())
def test_stacks_of_random_models_are_what_plain_torch_trains(one: Problem) -> None:
    trained = one.trained()
    expected = train_plain(
        one,
        untrained_start(one),
        lambda epoch: seeds.epoch_order(one.recipe.seed, 0, epoch, one.num_examples),
    )
    for key, value in expected.named_parameters():
        torch.testing.assert_close(trained.model.get_parameter(key), value, rtol=0, atol=1e-10)
    bank = retrain_bank(trained, PLAN, progress=False)
    for mask, outputs in zip(bank.masks, bank.outputs, strict=True):
        found = plain_outputs(trained, mask, 0)
        np.testing.assert_allclose(outputs[0], found, rtol=0, atol=1e-10)
