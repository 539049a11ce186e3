"""The base model."""

from dataclasses import replace

import pytest
import torch

from decomposition.errors import ProblemError
from decomposition.retraining import seeds, train_base_model
from tests.cases import CASES
from tests.retraining.plain import RECIPE, train_plain, untrained_start, with_recipe


def test_it_equals_a_plain_loop_in_the_shared_order() -> None:
    problem = with_recipe(CASES["residual"]())
    expected = train_plain(
        problem,
        untrained_start(problem),
        lambda epoch: seeds.epoch_order(RECIPE.seed, 0, epoch, problem.num_examples),
    )
    model = train_base_model(problem)
    for name, value in expected.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), value, rtol=0, atol=1e-10)


def test_trained_keeps_where_it_started() -> None:
    problem = with_recipe(CASES["gelu"]())
    trained = problem.trained()
    assert trained.initial is not None
    for name, value in problem.model.named_parameters():
        assert torch.equal(trained.initial[name], value)
        assert not torch.equal(trained.model.get_parameter(name), value)


def test_zero_epochs_change_nothing() -> None:
    problem = with_recipe(CASES["gelu"](), replace(RECIPE, epochs=0))
    assert torch.equal(problem.trained().theta(), problem.theta())


def test_divergence_is_an_error() -> None:
    recipe = replace(RECIPE, lr=1e6, epochs=40)
    with pytest.raises(ProblemError, match=r"diverged.*lr = 1000000\.0; lower Recipe\.lr"):
        train_base_model(with_recipe(CASES["deep_linear"](), recipe))
    decayed = replace(recipe, weight_decay=1e3)
    with pytest.raises(ProblemError, match=r"weight_decay = 1000\.0; .*, or Recipe\.weight_decay"):
        train_base_model(with_recipe(CASES["deep_linear"](), decayed))


def test_the_number_of_threads_is_left_alone() -> None:
    threads = torch.get_num_threads()
    train_base_model(with_recipe(CASES["gelu"]()))
    assert torch.get_num_threads() == threads
