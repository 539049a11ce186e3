"""The convolutional network and its problem: sizes, data, learning, derivatives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from decomposition import Problem, Recipe
from decomposition.errors import ProblemError
from decomposition.layers import LinearBlock
from decomposition.problems import Variant, make_problem
from decomposition.problems.networks import ACTIVATIONS, cnn
from tests.problems.learning import accuracy, check_derivatives, same


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem("digits_cnn", quick=True)


def test_images_are_those_of_the_digits_problem_in_the_same_rows() -> None:
    images, flat = make_problem("digits_cnn", 3), make_problem("digits", 3)
    for one, other in ((images.train, flat.train), (images.query, flat.query)):
        assert one[0].shape[1:] == (1, 8, 8)
        assert torch.equal(one[1], other[1])
    x, standardised = images.train[0].flatten(1).double(), flat.train[0].double()
    deviation = x.std(0, correction=0)
    again = torch.where(deviation > 0, (x - x.mean(0)) / deviation, 0.0)
    np.testing.assert_allclose(again, standardised, atol=1e-5)
    assert float(x.min()) == -1
    assert float(x.max()) == 1


@pytest.mark.parametrize("channels", [(), (3,), (3, 5), (2, 3, 4)])
def test_channels_are_those_asked_for(channels: tuple[int, ...]) -> None:
    problem = make_problem("digits_cnn", variant=Variant(hidden=channels, examples=40))
    widths = [1, *channels]
    sizes = [9 * i * o + o for i, o in itertools.pairwise(widths)]
    features = widths[-1] * (8 >> len(channels)) ** 2
    assert [block.size for block in problem.blocks] == [*sizes, 10 * features + 10]
    assert all(isinstance(block, LinearBlock) for block in problem.blocks)
    assert problem.notes == ()


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_the_activation_follows_every_convolution(name: str) -> None:
    model = cnn((2, 3), 10, ACTIVATIONS[name], 0)
    assert [type(module) for module in model][1::2] == [ACTIVATIONS[name]] * 2 + [nn.Linear]


def test_the_recipe_learns() -> None:
    trained = make_problem("digits_cnn").trained()
    assert accuracy(trained, "query") > 0.9


def test_the_quick_recipe_learns(problem: Problem) -> None:
    assert accuracy(problem.trained(), "query") > 0.85


def test_options_in_the_name() -> None:
    problem = make_problem("digits_cnn?hidden=4&queries=7&examples=50&label_noise=0.2&epochs=2")
    assert (problem.num_examples, problem.num_queries, problem.recipe.epochs) == (50, 7, 2)
    clean = make_problem("digits_cnn?hidden=4&queries=7&examples=50")
    assert int((problem.train[1] != clean.train[1]).sum()) == 10
    assert problem.name == "digits_cnn, 1-4-10, 50 examples, label noise 0.2"


def test_seed_fixes_everything_and_the_global_generators_nothing() -> None:
    same("digits_cnn")


def test_derivatives_of_one_example_depend_on_it_alone(problem: Problem) -> None:
    check_derivatives(problem)


def test_training_is_repeatable(problem: Problem) -> None:
    one, other = (
        make_problem("digits_cnn", recipe=Recipe(epochs=1), quick=True).trained() for _ in range(2)
    )
    assert torch.equal(one.theta(), other.theta())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_cnn?hidden=2-2-2-2", "halved 3 times, but hidden=2-2-2-2 asks for 4 convolu"),
        ("digits_cnn?queries=181", "digits_cnn holds 180 rows back .* queries=181 asks for more"),
        ("digits_cnn?queries=0", "option queries of digits_cnn must be a whole number >= 1"),
        ("digits_cnn?blocks=2", "unknown option 'blocks'.*digits_cnn takes"),
        ("digits_cnn?examples=1618", "has 1617 rows to train on"),
        ("wine?queries=3", "unknown option 'queries'"),
    ],
)
def test_what_cannot_be_given_is_said(name: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make_problem(name)
