"""Leave-one-out: the right examples, a bank of its own, and the loss that really changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.retraining import BankPlan, retrain_bank, seeds
from decomposition.retraining.fingerprint import chunk_key
from decomposition.scores.effects import Measured
from decomposition.targets.leave_one_out import LeaveOneOutPlan, removed_examples
from decomposition.targets.measurement import measure_leave_one_out
from tests.cases import CASES
from tests.retraining.plain import RECIPE, train_plain, with_recipe

PLAN = BankPlan(masks=6, second_order_masks=4)


@pytest.fixture(scope="module")
def trained() -> Problem:
    return with_recipe(CASES["gelu"]()).trained()


def test_every_mask_lacks_one_example_and_each_its_own(trained: Problem) -> None:
    masks = LeaveOneOutPlan.of(PLAN, 10, trained.num_examples).subsets(trained.num_examples)
    assert masks.shape == (10, trained.num_examples)
    assert (masks.sum(1) == trained.num_examples - 1).all()
    np.testing.assert_array_equal((~masks).argmax(1), removed_examples(0, 10, trained.num_examples))
    assert len(set(removed_examples(0, 10, trained.num_examples))) == 10


def test_more_than_all_examples_are_all(trained: Problem) -> None:
    plan = LeaveOneOutPlan.of(PLAN, 10_000, trained.num_examples)
    assert plan.masks == trained.num_examples
    assert (~plan.subsets(trained.num_examples)).any(0).all()


def test_fewer_examples_begin_the_same_list() -> None:
    np.testing.assert_array_equal(removed_examples(3, 5, 40), removed_examples(3, 20, 40)[:5])
    assert (removed_examples(3, 20, 40) != removed_examples(4, 20, 40)).any()


def test_a_model_is_the_plain_loop_without_its_example(trained: Problem) -> None:
    found = measure_leave_one_out(trained, PLAN, 3, progress=False)
    assert trained.initial is not None
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    x, y = trained.query
    base = loss(trained.model(x), y).detach()
    for k, removed in enumerate(removed_examples(PLAN.seed, 3, trained.num_examples)):

        def order(epoch: int, removed: int = removed) -> np.ndarray:
            full = seeds.epoch_order(RECIPE.seed, 0, epoch, trained.num_examples)
            return full[full != removed]

        model = train_plain(trained, trained.initial, order)
        change = loss(model(x), y).detach() - base
        np.testing.assert_allclose(found.truth[k, 0], change, rtol=0, atol=1e-10)


def test_predictions_are_the_scores_of_the_removed_examples(trained: Problem) -> None:
    """Up to a constant per query they are those of the masks, without their rounding."""
    from decomposition import build_chain
    from decomposition.scores.gradients import influence_scores, loss_gradients
    from decomposition.scores.scorers import scorer

    found = measure_leave_one_out(trained, PLAN, 8, progress=False)
    measured = Measured(found.weights, found.truth, found.second)
    rung = build_chain(trained)["ggn"]
    prediction = scorer(rung, loss_gradients(trained)).predicted_effects(measured.masks, 0.1)
    tau = influence_scores(trained, rung, 0.1).numpy()
    removed = removed_examples(PLAN.seed, 8, trained.num_examples)
    np.testing.assert_allclose(prediction, tau[:, removed].T, rtol=1e-4, atol=1e-9)
    by_mask = -found.bank.masks.astype(float) @ tau.T
    np.testing.assert_allclose(by_mask + tau.sum(1), tau[:, removed].T, rtol=0, atol=1e-12)


def test_keys_differ_from_those_of_any_subset() -> None:
    masks = LeaveOneOutPlan.of(PLAN, 6, 24).subsets(24)
    almost_all = BankPlan(alpha=23 / 24, masks=6).subsets(24)
    assert almost_all.shape == masks.shape
    assert chunk_key("study", masks, 0, 0) != chunk_key("study", almost_all, 0, 0)


def test_a_bank_folder_serves_both(trained: Problem, tmp_path) -> None:
    plan = replace(PLAN, second_order_masks=0)
    retrain_bank(trained, plan, tmp_path, progress=False)
    alone = measure_leave_one_out(trained, plan, 6, progress=False)
    shared = measure_leave_one_out(trained, plan, 6, tmp_path, progress=False)
    again = measure_leave_one_out(trained, plan, 6, tmp_path, progress=False)
    np.testing.assert_array_equal(alone.truth, shared.truth)
    np.testing.assert_array_equal(again.truth, shared.truth)


def test_repeats_and_second_order_serve_the_ceiling(trained: Problem) -> None:
    once = measure_leave_one_out(trained, PLAN, 6, progress=False)
    assert once.second is not None
    assert once.second.shape == (4, trained.num_queries)
    twice = measure_leave_one_out(trained, replace(PLAN, repeats=2), 6, progress=False)
    assert twice.second is None
    np.testing.assert_allclose(twice.truth[:4, 1], once.second, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_size", [24, 5])
def test_single_precision_orders_the_effects_as_double_does(
    trained: Problem, batch_size: int
) -> None:
    """Effects of a single example are small, but far above the rounding of float32."""
    truth = {}
    for dtype in ("float32", "float64"):
        recipe = replace(RECIPE, dtype=dtype, epochs=20, batch_size=batch_size)
        problem = with_recipe(CASES["gelu"](), recipe).trained()
        truth[dtype] = measure_leave_one_out(problem, PLAN, 24, progress=False).truth[:, 0]
    rho = [
        stats.spearmanr(*(truth[d][:, q] for d in truth)).statistic
        for q in range(trained.num_queries)
    ]
    assert min(rho) > 0.99


def test_too_many_for_the_problem_is_named() -> None:
    plan = LeaveOneOutPlan.of(PLAN, 10, 20)
    with pytest.raises(DecompositionError, match="10 examples cannot be left out of 5"):
        plan.subsets(5)
