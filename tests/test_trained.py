"""A model is an initialisation or a trained one: the problem is told which, or it asks."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from decomposition import Problem, Recipe, Settings, build_chain, run
from decomposition.errors import ProblemError
from decomposition.recipe import UnknownStart
from decomposition.spectrum.training import checkpoints
from tests import cases

SETTINGS = Settings(masks=8, second_order_masks=0, resamples=100, lattice=False, matrix_norms=False)
RECIPE = Recipe(lr=0.1, epochs=3, batch_size=8)


def given(**said: object) -> Problem:
    one = cases.tanh()
    return Problem(one.model, one.loss, one.train, one.query, **said)  # type: ignore[arg-type]


def assert_studied_as_it_is(problem: Problem) -> None:
    assert problem.trained() is problem
    torch.testing.assert_close(problem.trained().theta(), cases.tanh().theta(), rtol=0, atol=0)


def test_a_model_of_which_nothing_is_said_is_never_trained() -> None:
    problem = given()
    assert build_chain(problem)["ggn"].trace() > 0  # needs no training
    for asked in (problem, replace(problem, name="again"), copy.deepcopy(problem)):
        with pytest.raises(ProblemError, match=r"recipe=Recipe.*trained=True.*initial="):
            run(asked, settings=SETTINGS, progress=False)
    with pytest.raises(ProblemError, match="initialisation or a checkpoint"):
        pickle.loads(pickle.dumps(problem)).trained()


def test_a_recipe_says_that_the_model_is_an_initialisation() -> None:
    for recipe in (RECIPE, replace(given().recipe, epochs=2)):
        problem = given(recipe=recipe).trained()
        assert not torch.equal(problem.theta(), cases.tanh().theta())


def test_a_trained_model_is_studied_as_it_is() -> None:
    problem = given(trained=True)
    for same in (
        problem,
        replace(problem, name="again"),
        copy.deepcopy(problem),
        problem.to("cpu"),
    ):
        assert_studied_as_it_is(same)
    assert_studied_as_it_is(given(trained=True, recipe=RECIPE))
    result = run(problem, settings=replace(SETTINGS, attribution=False), progress=False)
    expected = build_chain(problem)["hessian"].eigenvalues()
    found = torch.from_numpy(result["/spectrum"]["eigenvalues"].sel(rung="hessian").values)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_where_training_started_may_be_said_too() -> None:
    start = copy.deepcopy(cases.tanh().model.state_dict())
    for problem in (given(initial=start), given(initial=start, trained=True, recipe=RECIPE)):
        assert not isinstance(problem.initial, UnknownStart)
        assert_studied_as_it_is(problem)


def test_retraining_from_a_start_that_is_not_known_is_refused_before_any_work() -> None:
    problem = given(trained=True, recipe=RECIPE)
    with pytest.raises(ProblemError, match=r"initial=….*randomness='independent'.*bank="):
        run(problem, settings=SETTINGS, progress=False)
    with pytest.raises(ProblemError, match="Problem\\(initial=…\\)"):
        checkpoints(problem, [0, 1])


def test_independent_retraining_of_a_trained_model_needs_its_recipe_alone() -> None:
    settings = replace(SETTINGS, randomness="independent")
    with pytest.raises(ProblemError, match=r"recipe=….*bank="):
        run(given(trained=True), settings=settings, progress=False)
    result = run(given(trained=True, recipe=RECIPE), settings=settings, progress=False)
    assert result["/bank"].sizes["mask"] == 8


def test_trained_is_yes_or_no() -> None:
    with pytest.raises(ProblemError, match=r"Problem\.trained must be True or False, got 'yes'"):
        given(trained="yes")
