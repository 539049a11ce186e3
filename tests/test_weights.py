"""Weights of training examples: those of a loss that multiplies by them, everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decomposition import CustomLoss, Problem, Recipe, Settings, build_chain, influence_scores, run
from decomposition.chain import build_lattice
from decomposition.chain.cost import Rates
from decomposition.chain.rungs import FullGGN, fisher_rungs, sampled_kfac
from decomposition.curvature import DenseCurvature, Sampled
from decomposition.curvature.block_products import block_ggn_product
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.products import ggn_product, hessian_product
from decomposition.errors import ProblemError
from decomposition.evaluation import mean_loss
from decomposition.inputs import take
from decomposition.problems.least_squares import least_squares
from decomposition.retraining import BankPlan
from decomposition.retraining.bank import retrain_bank
from decomposition.retraining.fingerprint import study_fingerprint
from decomposition.scores.gradients import (
    StreamedGradients,
    loss_gradients,
    target_gradients,
)
from decomposition.scores.stored import StoredGradients
from decomposition.targets.pbrf import proximal_responses
from tests import cases, general
from tests.curvature import wide
from tests.elsewhere import elsewhere

RECIPE = Recipe(lr=0.1, epochs=3, batch_size=5, dtype="float64", seed=3)
PLAN = BankPlan(masks=4, second_order_masks=0)
F = nn.functional


def binary() -> Problem:
    problem = cases.tanh_regression()
    rows = [(x, (y > 0).double()) for x, y in (problem.train, problem.query)]
    return Problem(problem.model, nn.BCEWithLogitsLoss(), *rows)


def smoothed() -> Problem:
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.tensor([1.0, 2.0, 0.5]))
    return replace(cases.residual(), loss=loss)


def at_positions() -> Problem:
    """Labels at each of 5 positions."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 2, padding=1), nn.Tanh(), nn.Conv1d(3, 3, 2)).double()
    x, y = general.normal(11, 2, 5), general.tokens(11, 5, below=3)
    return Problem(model, nn.CrossEntropyLoss(), (x[:8], y[:8]), (x[8:], y[8:]))


def images_out() -> Problem:
    """Numbers of the outputs' shape (2, 3, 3)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2, padding=1), nn.Tanh(), nn.Conv2d(2, 2, 2)).double()
    x, y = general.normal(9, 1, 3, 3), general.normal(9, 2, 3, 3, seed=1)
    return Problem(model, nn.MSELoss(), (x[:7], y[:7]), (x[7:], y[7:]))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    case.__name__: case
    for case in (
        cases.tanh,
        smoothed,
        cases.tanh_regression,
        binary,
        at_positions,
        images_out,
        general.attention,
        general.named_inputs,
    )
}
every_problem = pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)


def weights_for(problem: Problem) -> Tensor:
    """Between 0.3 and 2.5, and one 0."""
    weights = torch.linspace(0.3, 2.5, problem.num_examples, dtype=torch.float64).flip(0)
    weights[2] = 0.0
    return weights


def weighted(problem: Problem, weights: Tensor | None = None) -> Problem:
    weights = weights_for(problem) if weights is None else weights
    return replace(problem, weights=weights, recipe=RECIPE)


def twin(problem: Problem) -> Problem:
    """The same by a CustomLoss that finds the weight in the last column of its target."""
    assert problem.weights is not None
    own, shape, labels = problem.query_loss, problem.train[1].shape[1:], problem.train[1].dtype

    def loss(f: Tensor, rows: Tensor) -> Tensor:
        y = rows[:, :-1].reshape(len(rows), *shape)
        y = y if labels.is_floating_point else y.to(labels)
        return rows[:, -1] * own.per_example(f.flatten(1), y)

    def target(y: Tensor, weights: Tensor) -> Tensor:
        return torch.cat([y.reshape(len(y), -1).double(), weights[:, None]], 1)

    (x, y), (xq, yq) = problem.train, problem.query
    model = problem.model
    return replace(
        problem,
        model=nn.Sequential(model, nn.Flatten()) if len(problem.output_shape) > 1 else model,
        loss=CustomLoss(loss, "weighted"),
        train=(x, target(y, problem.weights)),
        query=(xq, target(yq, torch.ones(len(yq)))),
        weights=None,
    )


def close(found: Tensor, expected: Tensor, digits: float = 1e-10) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=digits * scale + 1e-14)


@every_problem
def test_every_rung_and_score_is_that_of_a_loss_times_weight(make: Callable[[], Problem]) -> None:
    problem = weighted(make())
    other = twin(problem)
    extra = {k: v for k, v in fisher_rungs().items() if k.endswith("empirical")}
    found, expected = build_chain(problem, extra=extra), build_chain(other, extra=extra)
    for rung in expected:
        close(found[rung].dense(), expected[rung].dense())
    for rung in ("hessian", "kfac", "ekfac_empirical"):
        scores = influence_scores(problem, found[rung], 0.1)
        close(scores, influence_scores(other, expected[rung], 0.1), 1e-8)
        assert not scores[:, 2].any()


@every_problem
def test_weights_of_one_change_no_bit(make: Callable[[], Problem]) -> None:
    plain = replace(make(), recipe=RECIPE)
    ones = replace(plain, weights=np.ones(plain.num_examples, np.int64))
    extra = {"kfac_mc": sampled_kfac(2)} if type(plain.query_loss) is not CustomLoss else None
    found, expected = build_lattice(ones, extra=extra), build_lattice(plain, extra=extra)
    for rung in expected:
        assert torch.equal(found[rung].dense(), expected[rung].dense())
    assert torch.equal(loss_gradients(ones).train, loss_gradients(plain).train)
    assert torch.equal(ones.trained().theta(), plain.trained().theta())
    assert mean_loss(ones, "train") == mean_loss(plain, "train")


def test_whole_weights_are_examples_repeated() -> None:
    problem = cases.residual()
    times = torch.arange(problem.num_examples) % 4
    x, y = (part.repeat_interleave(times, 0) for part in problem.train)
    repeated = build_chain(replace(problem, train=(x, y)))
    chain = build_chain(replace(problem, weights=times))
    for rung in ("hessian", "ggn", "block_ggn"):  # a factor of K-FAC has the unweighted mean of a
        close(chain[rung].dense() * problem.num_examples, repeated[rung].dense() * len(x))


def test_h_is_that_of_torchs_weighted_mean() -> None:
    problem = weighted(cases.tanh())
    (x, y), w = problem.train, problem.weights
    names, values = zip(*problem.double_model().named_parameters(), strict=True)
    assert w is not None

    def objective(*parameters: Tensor) -> Tensor:
        f = torch.func.functional_call(problem.model, dict(zip(names, parameters, strict=True)), x)
        return (w * F.cross_entropy(f, y, reduction="none")).mean()

    blocks = torch.autograd.functional.hessian(objective, tuple(v.detach() for v in values))
    expected = torch.cat(
        [
            torch.cat([b.reshape(a.numel(), -1) for b in row], 1)
            for a, row in zip(values, blocks, strict=True)
        ]
    )
    close(build_chain(problem)["hessian"].dense(), expected)


@pytest.mark.parametrize("make", [wide.plain, general.cnn, general.attention])
def test_products_dual_forms_and_streams_carry_the_weights(
    make: Callable[[], Problem], tmp_path: Path
) -> None:
    problem = weighted(make())
    chain = build_chain(problem)
    v = torch.eye(problem.num_parameters, dtype=torch.float64)[:, ::7]
    for rung, product in (
        ("hessian", hessian_product(problem)),
        ("ggn", ggn_product(problem)),
        ("block_ggn", block_ggn_product(problem)),
    ):
        close(product.matvec(v), chain[rung].dense() @ v)
    for rung, dual in zip(("ggn", "block_ggn"), dual_rungs(problem), strict=True):
        close(dual.matvec(v), chain[rung].dense() @ v)
        close(dual.solve(v, 0.1), chain[rung].solve(v, 0.1), 1e-8)
    expected = influence_scores(problem, chain["ekfac"], 0.1)
    kept = StoredGradients(problem, tmp_path, "float64")
    close(StreamedGradients(problem).scores(chain["ekfac"], 0.1), expected)
    close(StreamedGradients(problem, stored=kept).scores(chain["ekfac"], 0.1), expected)
    close(StreamedGradients(problem).along(v[:, :2]), v[:, :2].T @ loss_gradients(problem).train)


def test_sampled_labels_count_their_examples_weight() -> None:
    problem = cases.residual()
    expected = build_chain(problem, extra={"mc": sampled_kfac(2)})["mc"].dense()
    four = replace(problem, weights=torch.full((problem.num_examples,), 4))
    close(build_chain(four, extra={"mc": sampled_kfac(2)})["mc"].dense(), 4 * expected)
    uneven = weighted(problem)
    sampled, ggn = FullGGN(Sampled(400))(uneven).dense(), build_chain(uneven)["ggn"].dense()
    assert float((sampled - ggn).norm()) < 0.1 * float(ggn.norm())


@pytest.mark.parametrize("make", [cases.tanh, binary, at_positions, general.named_inputs])
def test_base_and_retrained_models_are_those_of_a_loss_times_weight(
    make: Callable[[], Problem],
) -> None:
    problem = weighted(make()).trained()
    other = twin(weighted(make())).trained()
    close(problem.theta(), other.theta())
    found, expected = retrain_bank(problem, PLAN), retrain_bank(other, PLAN)
    assert found.outputs is not None
    assert expected.outputs is not None
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-8, atol=1e-10)


def test_a_batch_moves_a_model_by_the_mean_of_its_weighted_gradients() -> None:
    problem = replace(weighted(cases.tanh()), recipe=replace(RECIPE, epochs=1, batch_size=100))
    step = loss_gradients(problem).train.mean(1)
    close(problem.trained().theta(), problem.theta() - RECIPE.lr * step)


def test_a_proximal_response_removes_the_weighted_term() -> None:
    problem = weighted(cases.tanh()).trained()
    other, removed = twin(problem), np.array([0, 2, 5])
    answers = [
        proximal_responses(p, build_chain(p)["ggn"], 1.0, removed)  # type: ignore[arg-type]
        for p in (problem, other)
    ]
    np.testing.assert_allclose(answers[0].outputs, answers[1].outputs, rtol=1e-8)
    np.testing.assert_array_equal(answers[0].outputs[1], answers[0].base_outputs)  # weight 0


def test_queries_have_no_weights() -> None:
    plain = cases.tanh()
    problem = weighted(plain)
    assert torch.equal(loss_gradients(problem).query, loss_gradients(plain).query)
    assert mean_loss(problem, "query") == mean_loss(plain, "query")
    margins = target_gradients(problem, "margin")
    assert torch.equal(margins.query, target_gradients(plain, "margin").query)
    assert not margins.train[:, 2].any()


def test_weights_are_part_of_what_names_a_bank_and_stored_gradients(tmp_path: Path) -> None:
    problem = weighted(cases.tanh()).trained()
    start = dict(problem.model.named_parameters())
    others = [
        replace(problem, weights=w) for w in (None, problem.weights, weights_for(problem) * 2)
    ]
    keys = [study_fingerprint(p, PLAN, start) for p in (problem, *others)]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3
    assert len({StoredGradients(p, tmp_path).path for p in (problem, *others)}) == 3


def test_weights_move_with_the_problem_and_are_kept_by_replace() -> None:
    problem = weighted(cases.tanh())
    expected = build_chain(problem)["ggn"].dense()
    with elsewhere() as device:
        there = problem.to(device)
        assert there.weights is not None
        assert there.weights.device == device
        close(build_chain(there)["ggn"].dense().cpu(), expected)
    assert replace(problem, name="other").weights is not None
    few = problem.of_examples(slice(4, 9))
    x, y = (take(part, slice(4, 9)) for part in problem.train)
    assert problem.weights is not None
    again = replace(problem, train=(x, y), weights=problem.weights[4:9])
    assert torch.equal(build_chain(few)["ggn"].dense(), build_chain(again)["ggn"].dense())
    assert Rates.measure(problem).sweep > 0


def test_targets_without_their_weights_are_refused_not_taken_for_others() -> None:
    for make in PROBLEMS.values():
        problem = weighted(make())
        f = torch.zeros(problem.num_examples, problem.num_outputs, dtype=torch.float64)
        with pytest.raises(ProblemError, match=re.escape('problem.rows("train")')):
            problem.loss_function.per_example(f, problem.train[1])
        rows = problem.rows("train")[1]
        assert problem.loss_function.per_example(f, rows).shape == (problem.num_examples,)


def test_a_whole_run_says_what_its_weights_mean() -> None:
    settings = Settings(masks=12, second_order_masks=4, resamples=100, damping_points=3)
    problem = weighted(cases.tanh())
    result, other = run(problem, settings=settings), run(twin(problem), settings=settings)
    np.testing.assert_allclose(
        result["attribution/lds"].values, other["attribution/lds"].values, atol=1e-6
    )
    assert any("weights from 0 to 2.5, 1 of them 0" in note for note in problem.notes)
    assert "cross_entropy times weight" in str(result.attrs)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(23), "one number for each of the 24 training examples"),
        (torch.ones(24, 1), "got \\(24, 1\\)"),
        (torch.zeros(24), "every training example has weight 0"),
        (torch.ones(24, dtype=torch.complex64), "complex64"),
        ([1.0] * 24, "tensor or a NumPy array, got list"),
        (np.array(["1"] * 24), "weights cannot be a tensor"),
        (1.0, "got float"),
    ],
)
def test_weights_that_are_none_are_refused(weights: object, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        replace(cases.tanh(), weights=weights)


@given(
    place=st.integers(0, 23),
    value=st.sampled_from([-1.0, -1e-300, float("nan"), float("inf"), -float("inf"), 1e300]),
)
@settings(deadline=None, max_examples=12, derandomize=True)
def test_a_weight_that_is_none_is_named_with_its_example(place: int, value: float) -> None:
    weights = torch.ones(24, dtype=torch.float64)
    weights[place] = value
    with pytest.raises(ProblemError, match=f"training example {place} is {re.escape(str(value))}"):
        replace(cases.tanh(), weights=weights)


def test_closed_forms_without_weights_say_so() -> None:
    with pytest.raises(ProblemError, match="mse times weight"):
        least_squares(weighted(cases.linear_regression()))


def test_targets_that_a_row_of_floats_cannot_hold_are_refused() -> None:
    loss = CustomLoss(lambda f, y: f.square().sum(1) * (y % 7 + 1), "odd")
    problem = cases.tanh()
    large = replace(problem, loss=loss, train=(problem.train[0], problem.train[1] + 2**24))
    with pytest.raises(ProblemError, match="16,777,216"):
        replace(large, weights=torch.ones(problem.num_examples))
    floats = (problem.query[0], problem.query[1].double())
    with pytest.raises(ProblemError, match="one shape and type"):
        replace(problem, loss=loss, query=floats, weights=torch.ones(problem.num_examples))


def test_a_weight_for_every_example_in_torchs_loss_names_the_way_that_works() -> None:
    problem = binary()
    weight = torch.ones(problem.num_examples, 2)
    with pytest.raises(ProblemError, match="weights=…\\), or repeat an example"):
        replace(problem, loss=nn.BCEWithLogitsLoss(weight=weight))
    assert DenseCurvature(build_chain(weighted(problem))["ggn"].dense()).trace() > 0
