"""What a bank is predicted to take: models left, steps, and seconds that can be believed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from decomposition import Problem
from decomposition.errors import ProblemError
from decomposition.retraining import BankPlan, retrain_bank
from decomposition.retraining.cost import retraining_cost
from decomposition.targets.leave_one_out import LeaveOneOutPlan
from tests.cases import CASES
from tests.general import GENERAL
from tests.retraining.plain import RECIPE, with_recipe

PLAN = BankPlan(masks=30, second_order_masks=10)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return with_recipe(CASES["gelu"](), replace(RECIPE, epochs=40, batch_size=5)).trained()


def test_models_and_steps_are_those_of_the_plan(problem: Problem) -> None:
    cost = retraining_cost(problem, PLAN)
    assert cost.models == 40
    assert cost.steps == 40 * 3  # 12 of 24 examples in batches of 5
    assert cost.seconds > 0
    assert cost.hours == cost.seconds / 3600
    fewer = replace(problem, recipe=replace(problem.recipe, drop_last=True))
    assert retraining_cost(fewer, PLAN).steps == 40 * 2
    one = LeaveOneOutPlan.of(PLAN, 6, problem.num_examples)
    assert retraining_cost(problem, one).steps == 40 * 5  # 23 examples
    assert retraining_cost(problem, one).models == 12


def test_the_prediction_is_of_the_right_size() -> None:
    """Within a factor that a busy machine may add."""
    problem = with_recipe(GENERAL["cnn"](), replace(RECIPE, epochs=60, batch_size=4)).trained()
    plan = BankPlan(masks=60, second_order_masks=0)
    predicted = retraining_cost(problem, plan).seconds
    started = time.perf_counter()
    retrain_bank(problem, plan, progress=False)
    assert 0.1 < predicted / (time.perf_counter() - started) < 10


def test_what_is_in_the_folder_costs_nothing(problem: Problem, tmp_path: Path) -> None:
    retrain_bank(problem, PLAN, tmp_path, progress=False)
    assert retraining_cost(problem, PLAN, tmp_path).seconds == 0.0
    more = retraining_cost(problem, replace(PLAN, repeats=2), tmp_path)
    assert more.models == 30  # the second repeat, in the place of a second order
    other = replace(problem, recipe=replace(problem.recipe, lr=0.01))
    assert retraining_cost(other, PLAN, tmp_path).models == 40


def test_a_problem_that_is_not_trained_can_be_asked_about() -> None:
    problem = with_recipe(CASES["gelu"]())
    before = torch.cat([p.flatten() for p in problem.model.parameters()]).clone()
    assert retraining_cost(problem, PLAN).seconds > 0
    assert torch.equal(torch.cat([p.flatten() for p in problem.model.parameters()]), before)


def test_a_plan_that_does_not_fit_is_an_error(problem: Problem) -> None:
    with pytest.raises(ProblemError, match="keeps none"):
        retraining_cost(problem, replace(PLAN, alpha=1e-3))
