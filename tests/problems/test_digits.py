"""Digits: no query was trained on, and row i is the same example wherever it appears."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from decomposition import Problem, Recipe, influence_scores
from decomposition.curvature import ScaledIdentity
from decomposition.curvature.assembly import assemble_ggn, assemble_hessian
from decomposition.problems import digits
from decomposition.retraining import BankPlan, retrain_bank
from decomposition.scores.gradients import loss_gradients

ROW = 1203


@pytest.fixture(scope="module")
def problem() -> Problem:
    """The quick network after one epoch."""
    return digits(recipe=Recipe(epochs=1), quick=True).trained()


@pytest.fixture(scope="module")
def disturbed(problem: Problem) -> Problem:
    """The same model and data, but for the inputs of one training example."""
    x, y = problem.train
    x = x.clone()
    x[ROW] = x[ROW].flip(0) + 0.5
    return replace(problem, train=(x, y))


def test_sizes_are_those_of_the_documentation() -> None:
    full = digits()
    assert (full.num_examples, full.num_queries, full.num_parameters) == (1617, 180, 6570)
    assert digits(quick=True).num_parameters == 1482


def test_no_query_is_a_training_example_by_index_or_by_pixels() -> None:
    images, _ = load_digits(return_X_y=True)
    assert len(np.unique(images, axis=0)) == len(images)  # the data set has no duplicates
    problem = digits()
    train, query = ({row.tobytes() for row in part[0].numpy()} for part in _splits(problem))
    assert not train & query
    assert len(train) + len(query) == len(images)


def test_rows_are_one_permutation_of_the_data_set_with_their_labels() -> None:
    images, labels = load_digits(return_X_y=True)
    problem = digits(seed=3)
    order = np.random.default_rng(3).permutation(len(images))
    raw = images[order[180:]]
    scale = np.where(raw.std(0) > 0, raw.std(0), 1.0)
    for (x, y), rows in zip(_splits(problem), (order[180:], order[:180]), strict=True):
        expected = (images[rows] - raw.mean(0)) / scale
        expected[:, raw.std(0) == 0] = 0.0
        np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(y, labels[rows])


def test_standardisation_uses_the_training_rows_alone() -> None:
    train, query = (part[0].double() for part in _splits(digits()))
    varies = train.std(0) > 0
    np.testing.assert_allclose(train.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(train[:, varies].std(0, correction=0), 1.0, rtol=1e-5)
    assert float(query[:, varies].mean(0).abs().max()) > 1e-2
    assert not query[:, ~varies].any()


def test_seed_fixes_everything_and_the_global_generator_nothing() -> None:
    torch.manual_seed(1)
    one = digits(seed=5, quick=True)
    torch.manual_seed(2)
    same, other = digits(seed=5, quick=True), digits(seed=6, quick=True)
    assert bool((one.theta() == same.theta()).all())
    assert bool((one.train[0] == same.train[0]).all())
    assert not bool((one.theta() == other.theta()).all())
    assert not bool((one.train[1] == other.train[1]).all())
    assert one.recipe == same.recipe != other.recipe


def test_row_i_is_gradient_i(problem: Problem, disturbed: Problem) -> None:
    before, after = loss_gradients(problem), loss_gradients(disturbed)
    changed = (before.train != after.train).any(0)
    assert torch.nonzero(changed).flatten().tolist() == [ROW]
    assert bool((before.query == after.query).all())


def test_row_i_is_score_column_i(problem: Problem, disturbed: Problem) -> None:
    identity = ScaledIdentity(problem.num_parameters, 1.0)
    before, after = (influence_scores(p, identity, 0.1) for p in (problem, disturbed))
    moved = (before - after).abs().max(0).values > 1e-12 * float(before.abs().max())
    assert torch.nonzero(moved).flatten().tolist() == [ROW]


@pytest.mark.parametrize("assemble", [assemble_ggn, assemble_hessian])
def test_row_i_is_one_nth_of_the_curvature(problem: Problem, disturbed: Problem, assemble) -> None:
    change = assemble(disturbed) - assemble(problem)
    after, before = (
        assemble(replace(p, train=(p.train[0][[ROW]], p.train[1][[ROW]])))
        for p in (disturbed, problem)
    )
    expected = (after - before) / problem.num_examples
    torch.testing.assert_close(change, expected, rtol=1e-7, atol=1e-10 * float(after.abs().max()))


@pytest.mark.parametrize("randomness", ["shared", "independent"])
def test_row_i_is_mask_column_i(problem: Problem, disturbed: Problem, randomness: str) -> None:
    """Exactly the models retrained on subsets with example i react."""
    plan = BankPlan(masks=8, second_order_masks=0, randomness=randomness)  # type: ignore[arg-type]
    before, after = (retrain_bank(p, plan, progress=False) for p in (problem, disturbed))
    np.testing.assert_array_equal(before.masks, after.masks)
    reacted = (before.outputs != after.outputs).any((1, 2, 3))
    np.testing.assert_array_equal(reacted, before.masks[:, ROW])
    assert 0 < reacted.sum() < len(reacted)


def _splits(problem: Problem) -> tuple[tuple, tuple]:
    return problem.train, problem.query
