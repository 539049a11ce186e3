"""Built-in problems: of the documented size, trainable, seeded, split by rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition import Problem
from decomposition.problems import BUILT_IN, make_problem

SIZES = {  # training rows, queries, parameters, parameters of the quick network
    "digits": (1617, 180, 6570, 1482),
    "breast_cancer": (455, 114, 650, 266),
    "wine": (142, 36, 387, 139),
    "diabetes": (354, 88, 321, 97),
    "linear_gaussian": (400, 100, 200, 200),
    "teacher": (800, 200, 269, 269),
    "digits_cnn": (1617, 180, 1898, 666),
    "chars": (600, 100, 3412, 1132),
    "digits_resnet": (200, 10, 1057162, 7962),
    "mnist_mlp": (5000, 500, 101770, 12730),
}
OWN_TESTS = ("digits", "digits_cnn", "chars", "digits_resnet", "mnist_mlp")
SMALL = [name for name in SIZES if name not in OWN_TESTS]


def loss(problem: Problem, part: str) -> float:
    x, y = getattr(problem, part)
    with torch.no_grad():
        f = problem.double_model()(x.double())
    y = y.double() if y.is_floating_point() else y
    return float(problem.loss_function.per_example(f, y).mean())


def constant_loss(problem: Problem) -> float:
    """Query loss of the best constant prediction on the training rows."""
    y, query_y = problem.train[1], problem.query[1]
    if y.is_floating_point():
        return float((query_y - y.mean(0)).square().mean())
    return float(-torch.log(torch.bincount(y) / len(y))[query_y].mean())


def test_every_problem_is_listed_here() -> None:
    assert list(BUILT_IN) == list(SIZES)


@pytest.mark.parametrize("name", list(SIZES))
def test_sizes_are_those_of_the_documentation(name: str) -> None:
    problem = make_problem(name)
    quick = make_problem(name, quick=True)
    found = (
        problem.num_examples,
        problem.num_queries,
        problem.num_parameters,
        quick.num_parameters,
    )
    assert found == SIZES[name]
    documented = BUILT_IN[name].__doc__ or ""
    assert f"{problem.num_parameters:,}" in documented
    assert f"{problem.num_queries}" in documented


@pytest.mark.parametrize("name", SMALL)
def test_the_recipe_learns_without_memorising(name: str) -> None:
    problem = make_problem(name, quick=True)
    trained = problem.trained()
    assert loss(trained, "train") < 0.5 * loss(problem, "train")
    assert loss(trained, "query") < 0.6 * constant_loss(problem)
    assert loss(trained, "train") > 0.01


@pytest.mark.parametrize("name", SMALL)
def test_seed_fixes_everything_and_the_global_generators_nothing(name: str) -> None:
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    one = make_problem(name, 5)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    same, other = make_problem(name, 5), make_problem(name, 6)
    assert torch.equal(one.train[0], same.train[0])
    assert torch.equal(one.theta(), same.theta())
    assert not torch.equal(one.train[0], other.train[0])
    assert not torch.equal(one.theta(), other.theta())
    assert one.recipe == same.recipe != other.recipe
