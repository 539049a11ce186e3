"""The bank in memory: the right cells, whatever the chunks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from decomposition.errors import ProblemError, UnsupportedModelError
from decomposition.problem import Problem
from decomposition.retraining import Bank, BankPlan, default_chunk_size, retrain_bank, seeds
from decomposition.retraining.initial import independent_start
from tests.cases import CASES
from tests.retraining.plain import RECIPE, train_plain, with_recipe

PLAN = BankPlan(masks=6, second_order_masks=4)


@pytest.fixture(scope="module")
def trained() -> Problem:
    return with_recipe(CASES["gelu"]()).trained()


def bank(problem: Problem, plan: BankPlan = PLAN, chunk_size: int = 4) -> Bank:
    return retrain_bank(problem, plan, chunk_size=chunk_size, progress=False)


def plain_outputs(problem: Problem, mask: np.ndarray, repeat: int) -> np.ndarray:
    assert problem.initial is not None

    def order(epoch: int) -> np.ndarray:
        base = seeds.epoch_order(RECIPE.seed, repeat, epoch, problem.num_examples)
        return np.array([i for i in base if mask[i]])

    model = train_plain(problem, problem.initial, order)
    return model(problem.query[0]).detach().numpy()


def test_shared_cells_follow_the_base_order_filtered_to_the_subset(trained: Problem) -> None:
    plan = replace(PLAN, repeats=2)
    result = bank(trained, plan)
    for j, mask in enumerate(plan.subsets(trained.num_examples)):
        for r in range(2):
            expected = plain_outputs(trained, mask, r)
            np.testing.assert_allclose(result.outputs[j, r], expected, rtol=0, atol=1e-10)


def test_a_dropped_last_batch_is_that_of_the_subset() -> None:
    """12 of 24 examples in batches of 5: two steps an epoch; the base model takes four."""
    recipe = replace(RECIPE, drop_last=True, schedule="cosine")
    problem = with_recipe(CASES["gelu"](), recipe).trained()
    result = bank(problem)
    everything = np.ones(problem.num_examples, bool)
    expected = [plain_outputs(problem, mask, 0) for mask in (*result.masks, everything)]
    found = [*result.outputs[:, 0], result.base_outputs]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_the_second_order_is_one_more_repeat(trained: Problem) -> None:
    result, repeated = bank(trained), bank(trained, replace(PLAN, repeats=2))
    assert repeated.second_outputs is None
    assert result.second_outputs is not None
    np.testing.assert_allclose(result.second_outputs, repeated.outputs[:4, 1], rtol=0, atol=1e-12)


def test_base_outputs_are_the_trained_models(trained: Problem) -> None:
    expected = trained.model(trained.query[0]).detach().numpy()
    np.testing.assert_allclose(bank(trained).base_outputs, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("randomness", ["shared", "independent"])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_a_cell_does_not_depend_on_its_chunk(
    trained: Problem, randomness: str, chunk_size: int
) -> None:
    plan = replace(PLAN, randomness=randomness)
    expected, result = bank(trained, plan), bank(trained, plan, chunk_size)
    np.testing.assert_allclose(result.outputs, expected.outputs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.second_outputs, expected.second_outputs, rtol=0, atol=1e-12)


def test_the_number_of_threads_changes_no_bit(trained: Problem) -> None:
    expected, threads = bank(trained, chunk_size=2), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = bank(trained, chunk_size=2)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(result.outputs, expected.outputs)


def test_a_shorter_bank_is_the_beginning_of_a_longer_one(trained: Problem) -> None:
    longer = bank(trained, replace(PLAN, masks=9, second_order_masks=0))
    np.testing.assert_array_equal(longer.masks[:6], bank(trained).masks)
    np.testing.assert_allclose(longer.outputs[:6], bank(trained).outputs, rtol=0, atol=1e-12)


def test_independent_cells_have_their_own_start_and_order(trained: Problem) -> None:
    plan = replace(PLAN, randomness="independent", repeats=2, seed=5)
    result = bank(trained, plan)
    for j, r in ((0, 0), (4, 1)):
        mask = result.masks[j]

        def order(epoch: int, j: int = j, r: int = r, mask: np.ndarray = mask) -> np.ndarray:
            return seeds.cell_order(5, j, r, epoch, mask)

        model = train_plain(trained, independent_start(trained.model, 5, j, r), order)
        expected = model(trained.query[0]).detach().numpy()
        np.testing.assert_allclose(result.outputs[j, r], expected, rtol=0, atol=1e-10)


def test_a_fresh_initialisation_leaves_the_global_generator_alone(trained: Problem) -> None:
    state = torch.random.get_rng_state()
    first, again = (independent_start(trained.model, 0, 1, 0) for _ in range(2))
    other = independent_start(trained.model, 0, 2, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_module_without_reset_parameters_is_named() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

    with pytest.raises(UnsupportedModelError, match=r"module 1 \(Bare\).*reset_parameters"):
        independent_start(nn.Sequential(nn.Linear(2, 2), Bare()), 0, 0, 0)


def test_leaving_one_out_differs_from_the_base_model_in_one_example(trained: Problem) -> None:
    result = bank(trained, BankPlan(alpha=23 / 24, masks=3, second_order_masks=0))
    assert result.second_outputs is None
    for j, mask in enumerate(result.masks):
        assert (~mask).sum() == 1
        expected = plain_outputs(trained, mask, 0)
        np.testing.assert_allclose(result.outputs[j, 0], expected, rtol=0, atol=1e-10)


def test_float32_is_kept_and_close_to_float64(trained: Problem) -> None:
    single = with_recipe(trained, replace(RECIPE, dtype="float32"))
    result = bank(single)
    assert result.outputs.dtype == np.float32
    np.testing.assert_allclose(result.outputs, bank(trained).outputs, rtol=0, atol=1e-4)


def test_regression(trained: Problem) -> None:
    problem = with_recipe(CASES["tanh_regression"]()).trained()
    result = bank(problem)
    expected = plain_outputs(problem, result.masks[5], 0)
    np.testing.assert_allclose(result.outputs[5, 0], expected, rtol=0, atol=1e-10)


def test_an_untrained_problem_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"problem\.trained\(\)"):
        bank(with_recipe(CASES["gelu"]()))


def test_divergence_names_the_mask() -> None:
    problem = with_recipe(CASES["deep_linear"]()).trained()
    wild = with_recipe(problem, replace(RECIPE, lr=1e6, epochs=40))
    with pytest.raises(ProblemError, match=r"mask \d+ \(repeat 0\) diverged.*lower Recipe\.lr"):
        bank(wild)
    decayed = with_recipe(problem, replace(RECIPE, lr=1.0, weight_decay=1e4, epochs=40))
    with pytest.raises(ProblemError, match=r"mask \d+ .*weight_decay = 10000\.0; .*weight_decay"):
        bank(decayed)


def test_a_chunk_holds_at_least_one_model(trained: Problem) -> None:
    with pytest.raises(ProblemError, match="chunk_size must be at least 1, got 0"):
        bank(trained, chunk_size=0)


@pytest.mark.parametrize(("parameters", "size"), [(1, 500), (6570, 100), (10**5, 5), (10**9, 1)])
def test_default_chunks_shrink_with_the_model(parameters: int, size: int) -> None:
    assert default_chunk_size(parameters) == size
