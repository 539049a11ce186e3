"""Problems with a known truth: what is said to be known is so."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from decomposition import Problem, build_chain, influence_scores
from decomposition.curvature.assembly import assemble_ggn, assemble_hessian
from decomposition.errors import ProblemError
from decomposition.problems import Variant, make_problem
from decomposition.problems.known_truth import linear_truth, teacher_truth
from decomposition.problems.least_squares import (
    LeaveOneOut,
    at_least_squares,
    least_squares,
    leave_one_out,
)
from decomposition.retraining import BankPlan, retrain_bank
from tests.cases import linear_softmax, tanh_regression


def with_parameters(problem: Problem, parameters: dict[str, torch.Tensor]) -> Problem:
    model = copy.deepcopy(problem.model).double()
    model.load_state_dict(parameters)
    return replace(problem, model=model)


@pytest.fixture(scope="module")
def linear() -> Problem:
    """The linear problem at its minimum."""
    problem = make_problem("linear_gaussian")
    return with_parameters(problem, at_least_squares(problem))


@pytest.fixture(scope="module")
def removed(linear: Problem) -> LeaveOneOut:
    return leave_one_out(linear)


def arrays(problem: Problem) -> tuple[np.ndarray, ...]:
    return tuple(t.double().numpy() for t in (*problem.train, *problem.query))


def test_training_arrives_at_the_least_squares_solution(linear: Problem) -> None:
    trained = make_problem("linear_gaussian").trained()
    torch.testing.assert_close(trained.theta(), linear.theta(), atol=2e-6, rtol=0)


def test_every_retrained_model_is_the_least_squares_solution_of_its_rows() -> None:
    problem = make_problem("linear_gaussian").trained()
    bank = retrain_bank(problem, BankPlan(masks=3, second_order_masks=0), progress=False)
    query = np.column_stack([problem.query[0].double().numpy(), np.ones(problem.num_queries)])
    for mask, outputs in zip(bank.masks, bank.outputs[:, 0], strict=True):
        rows = torch.from_numpy(np.flatnonzero(mask))
        part = replace(problem, train=(problem.train[0][rows], problem.train[1][rows]))
        np.testing.assert_allclose(outputs, query @ least_squares(part).T, atol=2e-5)


def test_the_curvature_of_every_rung_is_two_over_c_times_the_second_moment(
    linear: Problem,
) -> None:
    x = arrays(linear)[0]
    a = np.column_stack([x, np.ones(len(x))])
    moment = 2 / 8 * a.T @ a / len(a)
    expected = np.zeros((8, 25, 8, 25))
    for output in range(8):
        expected[output, :, output] = moment
    # parameter order: all weights, then all biases
    place = np.concatenate([np.arange(200).reshape(8, 25)[:, :24].ravel(), np.arange(24, 200, 25)])
    expected = expected.reshape(200, 200)[np.ix_(place, place)]
    for name, rung in build_chain(linear).items():
        np.testing.assert_allclose(rung.dense().numpy(), expected, atol=1e-12, err_msg=name)


def test_influence_scores_are_the_first_order_part_of_leaving_one_out(
    linear: Problem, removed: LeaveOneOut
) -> None:
    scores = influence_scores(linear, build_chain(linear)["kfac"], damping=0.0)
    scale = np.abs(removed.first_order).max()
    np.testing.assert_allclose(scores, removed.first_order, atol=1e-8 * scale)


def test_leaving_one_out_is_fitting_again_without_it(linear: Problem, removed: LeaveOneOut) -> None:
    x, y, query_x, query_y = arrays(linear)
    a, query_a = (np.column_stack([part, np.ones(len(part))]) for part in (x, query_x))

    def query_loss(rows: np.ndarray) -> np.ndarray:
        fitted = np.linalg.solve(a[rows].T @ a[rows], a[rows].T @ y[rows])
        return np.square(query_a @ fitted - query_y).mean(1)

    everything = np.arange(len(a))
    for i in (0, 17, 399):
        change = query_loss(np.delete(everything, i)) - query_loss(everything)
        np.testing.assert_allclose(removed.change[:, i], change, atol=1e-11)


def test_influence_misses_the_leverage_and_a_square(removed: LeaveOneOut, linear: Problem) -> None:
    """Change = τ/(1−h) + c²‖r‖²/(C (1−h)²): never below the first-order term."""
    linear_term = removed.first_order / (1 - removed.leverage)
    assert (removed.change >= linear_term).all()
    np.testing.assert_allclose(removed.leverage.sum(), 25, rtol=1e-9)  # trace of the hat matrix
    correlation = np.corrcoef(removed.change.ravel(), removed.first_order.ravel())[0, 1]
    assert correlation > 0.98


def test_the_truth_is_recovered_within_three_standard_errors(linear: Problem) -> None:
    truth = linear_truth()
    x, y, *_ = arrays(linear)
    a = np.column_stack([x, np.ones(len(x))])
    found = least_squares(linear)
    residual = y - a @ found.T
    freedom = len(a) - a.shape[1]
    variance = np.square(residual).sum() / (freedom * y.shape[1])
    assert abs(variance - truth.noise**2) < 3 * truth.noise**2 * (2 / (freedom * 8)) ** 0.5
    error = found - np.column_stack([truth.weight, truth.bias])
    inverse = np.linalg.inv(a.T @ a)
    chi_square = np.einsum("ci,ij,cj->", error, np.linalg.inv(inverse), error) / truth.noise**2
    assert abs(chi_square - error.size) < 3 * (2 * error.size) ** 0.5


def test_inputs_have_the_covariance_of_the_truth() -> None:
    x = arrays(make_problem("linear_gaussian"))[0]
    covariance = linear_truth().covariance
    error = np.abs(np.cov(x.T) - covariance)
    assert error.max() < 4.5 * np.sqrt(2 / len(x))  # the largest of 300


def test_label_noise_adds_to_the_noise_of_the_truth() -> None:
    clean = make_problem("linear_gaussian")
    noisy = make_problem("linear_gaussian", variant=Variant(label_noise=0.5))
    x, y, *_ = arrays(noisy)
    residual = y - np.column_stack([x, np.ones(len(x))]) @ least_squares(noisy).T
    expected = linear_truth().noise ** 2 + 0.25 * arrays(clean)[1].var(0)
    ratio = np.square(residual).sum(0) / (len(x) - 25) / expected
    assert abs(ratio.mean() - 1) < 3 * (2 / (8 * (len(x) - 25))) ** 0.5


@pytest.mark.parametrize("case", [linear_softmax, tanh_regression])
def test_closed_forms_are_refused_where_there_are_none(case) -> None:
    with pytest.raises(ProblemError, match="one linear layer with a bias and squared error"):
        leave_one_out(case())


def test_too_few_examples_for_a_unique_minimum_are_refused() -> None:
    problem = make_problem("linear_gaussian", variant=Variant(examples=20))
    with pytest.raises(ProblemError, match="20 training examples do not determine the 25 weights"):
        least_squares(problem)


def test_labels_follow_the_teachers_probabilities() -> None:
    truth, problem = teacher_truth(), make_problem("teacher")
    x, y = (torch.cat(parts) for parts in zip(problem.train, problem.query, strict=True))
    p = truth.probabilities(x)
    surprise = -torch.log(p)
    own = surprise.gather(1, y[:, None])[:, 0]
    spread = ((p * surprise.square()).sum(1) - (p * surprise).sum(1).square()).sum().sqrt()
    assert abs(float(own.sum()) - len(x) * truth.bayes_loss(x)) < 3 * spread
    counts, expected = torch.bincount(y, minlength=5), p.sum(0)
    assert bool(((counts - expected).abs() < 3 * (p * (1 - p)).sum(0).sqrt()).all())


def test_at_the_teacher_hessian_and_ggn_agree_in_expectation() -> None:
    """E[H | x] = G at the truth, label by label: Σ_c p_c H(y = c) = G for every row."""
    problem = make_problem("teacher")
    truth = teacher_truth()
    at_truth = with_parameters(problem, truth.model.state_dict())
    row = problem.train[0][:1]
    p = truth.probabilities(row)[0]

    def curvature(assemble, label: int) -> torch.Tensor:
        return assemble(replace(at_truth, train=(row, torch.tensor([label]))))

    hessian = sum(p[c] * curvature(assemble_hessian, c) for c in range(5))
    torch.testing.assert_close(hessian, curvature(assemble_ggn, 0), atol=1e-12, rtol=0)


def test_the_teacher_is_a_stationary_point_within_three_standard_errors() -> None:
    """The mean gradient at the truth is N(0, G/N): its squared length in that metric is ~ χ²."""
    problem = make_problem("teacher")
    at_truth = with_parameters(problem, teacher_truth().model.state_dict())
    g = torch.autograd.grad(
        torch.nn.functional.cross_entropy(
            at_truth.model(problem.train[0].double()), problem.train[1]
        ),
        list(at_truth.model.parameters()),
    )
    mean = torch.cat([part.flatten() for part in g])
    ggn = assemble_ggn(at_truth)
    values, vectors = torch.linalg.eigh(ggn)
    kept = values > 1e-6 * values.max()
    statistic = problem.num_examples * ((vectors.T @ mean)[kept].square() / values[kept]).sum()
    freedom = int(kept.sum())
    assert freedom > 200
    assert abs(float(statistic) - freedom) < 3 * (2 * freedom) ** 0.5


def test_the_student_does_not_start_at_the_teacher() -> None:
    for seed in range(3):
        problem = make_problem("teacher", seed)
        with torch.no_grad():
            own = problem.model(problem.query[0]).softmax(1).double()
        truth = teacher_truth(seed).probabilities(problem.query[0])
        assert abs(float(np.corrcoef(own.ravel(), truth.ravel())[0, 1])) < 0.5
