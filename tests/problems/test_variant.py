"""Variants: the same data and split, another network, fewer rows, wrong labels; all nested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from decomposition import Problem, Recipe
from decomposition.errors import ProblemError
from decomposition.problems import BUILT_IN, Variant, make_problem
from decomposition.problems.networks import ACTIVATIONS
from decomposition.problems.table import noisy_targets, wrong_labels


def same_data(one: Problem, other: Problem) -> bool:
    pairs = zip((*one.train, *one.query), (*other.train, *other.query), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_network_variant_of_digits_changes_no_bit_of_data_or_initialisation(seed: int) -> None:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    raw = images[order[180:]]
    x = (images - raw.mean(0)) / np.where(raw.std(0) > 0, raw.std(0), 1.0)
    x[:, raw.std(0) == 0] = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    recipe = Recipe(epochs=3, seed=9)
    problem = make_problem("digits", seed, recipe, Variant(hidden=(16,), activation="tanh"))
    for (inputs, targets), rows in zip(
        (problem.train, problem.query), (order[180:], order[:180]), strict=True
    ):
        assert inputs.numpy().tobytes() == x[rows].astype(np.float32).tobytes()
        assert targets.numpy().tobytes() == labels[rows].tobytes()
    assert repr(problem.model) == repr(model)
    for name, value in model.state_dict().items():
        assert torch.equal(problem.model.state_dict()[name], value)
    assert problem.recipe == recipe


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_the_default_variant_changes_nothing(name: str) -> None:
    plain, varied = make_problem(name, 2), make_problem(name, 2, None, Variant())
    assert same_data(plain, varied)
    assert torch.equal(plain.theta(), varied.theta())
    assert plain.name == varied.name
    assert plain.name.startswith(name)
    assert plain.recipe == varied.recipe


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_hidden_widths_and_activation_are_those_asked_for(activation: str) -> None:
    variant = Variant(hidden=(5, 4, 3), activation=activation)
    problem = make_problem("wine", variant=variant)
    assert [(b.d_in, b.d_out) for b in problem.blocks] == [(13, 5), (5, 4), (4, 3), (3, 3)]
    kinds = [type(module) for module in problem.model.children()][1::2]
    assert kinds == [ACTIVATIONS[activation]] * 3


def test_no_hidden_layer_is_a_linear_model() -> None:
    assert make_problem("wine", variant=Variant(hidden=())).num_parameters == 3 * 14


def test_smaller_training_sets_are_the_first_rows_of_larger_ones() -> None:
    whole = make_problem("teacher")  # not standardised: rows can be compared
    for examples in (10, 50, 799):
        part = make_problem("teacher", variant=Variant(examples=examples))
        assert torch.equal(part.train[0], whole.train[0][:examples])
        assert torch.equal(part.train[1], whole.train[1][:examples])
        assert torch.equal(part.query[0], whole.query[0])


def test_inputs_and_targets_are_standardised_on_the_rows_kept() -> None:
    problem = make_problem("diabetes", variant=Variant(examples=60))
    for part in problem.train:
        np.testing.assert_allclose(part.double().mean(0), 0.0, atol=1e-6)
        np.testing.assert_allclose(part.double().std(0, correction=0), 1.0, rtol=1e-5)


def test_label_noise_replaces_exactly_the_fraction_and_leaves_the_queries() -> None:
    clean = make_problem("digits")
    noisy = make_problem("digits", variant=Variant(label_noise=0.2))
    assert int((clean.train[1] != noisy.train[1]).sum()) == round(0.2 * 1617)
    assert torch.equal(clean.train[0], noisy.train[0])
    assert torch.equal(clean.query[1], noisy.query[1])


def test_wrong_labels_are_nested_in_the_rate_with_the_same_wrong_class() -> None:
    labels = np.arange(500) % 7
    low, high = (wrong_labels(labels, 7, rate, seed=4) for rate in (0.1, 0.35))
    wrong = low != labels
    assert wrong.sum() == 50
    np.testing.assert_array_equal(low[wrong], high[wrong])


def test_draws_of_noise_are_nested_in_the_rows_too() -> None:
    labels = np.arange(500) % 7
    all_wrong = wrong_labels(labels, 7, 1.0, seed=4)
    np.testing.assert_array_equal(wrong_labels(labels[:80], 7, 1.0, seed=4), all_wrong[:80])
    y = np.random.default_rng(0).standard_normal((90, 2))
    part = noisy_targets(y[:40], 1.0, 4) - y[:40]
    scale = y[:40].std(0) / y.std(0)
    np.testing.assert_allclose(part, (noisy_targets(y, 1.0, 4) - y)[:40] * scale)


def test_wrong_classes_are_uniform_among_the_others() -> None:
    labels = np.full(40_000, 2)
    counts = np.bincount(wrong_labels(labels, 5, 1.0, seed=1), minlength=5)
    assert counts[2] == 0
    deviation = (counts[[0, 1, 3, 4]] - 10_000) / np.sqrt(40_000 * 0.25 * 0.75)
    assert np.abs(deviation).max() < 3


def test_regression_noise_has_the_standard_deviation_asked_for() -> None:
    clean, half, whole = (
        make_problem("diabetes", variant=Variant(label_noise=noise)) for noise in (0.0, 0.5, 1.0)
    )
    z = (whole.train[1] - clean.train[1]).double()
    assert abs(float(z.square().mean()) - 1) < 3 * (2 / len(z)) ** 0.5
    torch.testing.assert_close(half.train[1] - clean.train[1], 0.5 * z.float(), atol=1e-6, rtol=0)
    assert torch.equal(clean.query[1], whole.query[1])


def test_the_name_says_what_was_varied() -> None:
    variant = Variant(hidden=(4,), activation="relu", examples=90, label_noise=0.1)
    assert make_problem("wine", variant=variant).name == (
        "wine, 13-4-3 relu, 90 examples, label noise 0.1"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (4, 0)}, "hidden must be a whole number >= 1, got 0"),
        ({"hidden": (2.5,)}, "got 2.5"),
        ({"activation": "swish"}, "activation must be one of tanh, relu.*got 'swish'"),
        ({"examples": 1}, "examples must be a whole number >= 2, got 1"),
        ({"label_noise": -0.1}, "label_noise must lie in \\[0, inf\\), got -0.1"),
        ({"label_noise": float("nan")}, "label_noise must lie in .*got nan"),
    ],
)
def test_what_is_wrong_with_a_variant_is_said(changes: dict, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        Variant(**changes)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (Variant(label_noise=1.5), r"fraction of wrong labels.* in \[0, 1\], got 1.5"),
        (Variant(examples=143), "wine has 142 rows to train on .* 143 and 1 are needed"),
        (Variant(examples=2), "wine: the 2 training rows are all of one class"),  # at this seed
    ],
)
def test_what_a_problem_cannot_give_is_said(variant: Variant, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make_problem("wine", 1, variant=variant)
