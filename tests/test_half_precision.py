"""A model in half precision is studied at its exact weights, and its dtype is in no number."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from decomposition import Problem, Recipe, Settings, run
from decomposition.retraining import BankPlan, retrain_bank
from decomposition.retraining.base import other_base

TINY = Settings(masks=20, second_order_masks=4, matrix_norms=False, lattice=False, resamples=100)


def problem(dtype: torch.dtype) -> Problem:
    """Of the same numbers, which half precision holds, in whatever ``dtype``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
        x = torch.randn(26, 3)
    model = model.to(torch.float8_e5m2).to(dtype)
    x = x.to(torch.float8_e5m2).to(dtype)
    y = (x.float().sum(-1, keepdim=True) > 0).to(dtype)
    return Problem(
        model, nn.MSELoss(), (x[:22], y[:22]), (x[22:], y[22:]), Recipe(epochs=2, batch_size=8)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_whole_run_is_that_of_the_same_weights_in_float32(dtype: torch.dtype) -> None:
    half, single = (
        run(problem(kind), settings=TINY, progress=False) for kind in (dtype, torch.float32)
    )
    for group in ("attribution", "shares", "bank"):
        assert half[group].to_dataset().identical(single[group].to_dataset())


def test_a_fresh_start_is_not_rounded_to_half_precision() -> None:
    plan = BankPlan(masks=2, randomness="independent", second_order_masks=0)
    banks = [
        retrain_bank(problem(kind).trained(), plan, progress=False)
        for kind in (torch.bfloat16, torch.float32)
    ]
    assert (banks[0].outputs == banks[1].outputs).all()
    starts = [other_base(problem(kind), 1).model for kind in (torch.bfloat16, torch.float32)]
    assert torch.equal(starts[0][0].weight, starts[1][0].weight)  # type: ignore[index]


def test_a_checkpoint_in_half_precision_is_trained() -> None:
    single = problem(torch.float32).trained()
    model = copy.deepcopy(single.model).bfloat16()
    initial = problem(torch.bfloat16).model.state_dict()
    tree = run(
        replace(problem(torch.bfloat16), model=model, initial=initial),
        settings=TINY,
        progress=False,
    )
    assert tree.attrs["parameters"] == single.num_parameters
