"""The residual network and its problem: a million parameters, residual, trainable."""

from __future__ import annotations

import pytest
import torch

from decomposition import Problem
from decomposition.errors import ProblemError
from decomposition.problems import make_problem
from decomposition.problems.networks import ACTIVATIONS, ResidualBlock
from tests.problems.learning import accuracy, check_derivatives, mean_loss, same


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem("digits_resnet", quick=True)


def test_at_least_a_million_parameters_without_buffers_or_notes() -> None:
    problem = make_problem("digits_resnet")
    assert problem.num_parameters == sum(p.numel() for p in problem.model.parameters()) >= 1_000_000
    assert not list(problem.model.buffers())
    assert problem.notes == ()


def test_a_block_of_zero_scale_is_the_identity() -> None:
    h = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    block = ResidualBlock(3, ACTIVATIONS["gelu"], 0.0)
    assert torch.equal(block(h), h)


def test_the_branch_is_scaled(problem: Problem) -> None:
    h = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    block = ResidualBlock(3, ACTIVATIONS["tanh"], 0.5)
    branch = block.second(torch.tanh(block.first(torch.tanh(h))))
    torch.testing.assert_close(block(h), h + 0.5 * branch)
    assert {b.scale for b in problem.model.modules() if isinstance(b, ResidualBlock)} == {2**-0.5}


def test_the_quick_recipe_learns(problem: Problem) -> None:
    trained = problem.trained()
    assert accuracy(trained, "query") >= 0.8
    assert mean_loss(trained, "train") < 0.1 * mean_loss(problem, "train")


@pytest.mark.slow
def test_the_recipe_learns() -> None:
    trained = make_problem("digits_resnet?queries=180").trained()
    assert accuracy(trained, "query") > 0.9


def test_options_in_the_name() -> None:
    problem = make_problem("digits_resnet?hidden=8&blocks=2&queries=5&examples=30", quick=True)
    late = [name for name, module in problem.model.named_modules() if name.startswith("late.")]
    assert {name.split(".")[1] for name in late} == {"0", "1"}
    assert (problem.num_examples, problem.num_queries) == (30, 5)
    assert problem.name == "digits_resnet (quick), 2 blocks of 8, 30 examples"


def test_seed_fixes_everything_and_the_global_generators_nothing() -> None:
    same("digits_resnet")


def test_derivatives_of_one_example_depend_on_it_alone(problem: Problem) -> None:
    check_derivatives(problem)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_resnet?hidden=8-8", "takes one width as hidden, such as hidden=16, got 8-8"),
        ("digits_resnet?hidden=none", "takes one width as hidden.* got none"),
        ("digits_resnet?hidden=6", "hidden must be a multiple of 4, got 6"),
        ("digits_resnet?blocks=x", "option blocks of digits_resnet must be a whole number >= 1"),
    ],
)
def test_what_cannot_be_given_is_said(name: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make_problem(name)
