"""The proximal Bregman response: closed forms, its limit, its place on disk, its failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from decomposition import Problem, Recipe, build_chain, influence_scores
from decomposition.curvature import Curvature, DenseCurvature
from decomposition.curvature.assembly import assemble_ggn
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.operator import Diagonalised
from decomposition.curvature.products import ggn_product
from decomposition.errors import DecompositionError
from decomposition.problems.networks import mlp
from decomposition.retraining import BankPlan
from decomposition.scores.gradients import loss_gradients
from decomposition.source import import_closure
from decomposition.targets import pbrf
from decomposition.targets.functions import measure
from decomposition.targets.measurement import measure_proximal_responses
from decomposition.targets.pbrf import SOURCE, TOLERANCE, proximal_responses, responses_left
from tests import cases
from tests.general import GENERAL

LAMBDA = 0.1


def learnt(x: Tensor) -> Tensor:
    return (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def responses(
    problem: Problem, damping: float = LAMBDA, step: int = 1, **options
) -> pbrf.ProximalResponses:
    """Of every ``step``-th example."""
    removed = np.arange(0, problem.num_examples, step)
    return proximal_responses(problem, ggn_of(problem), damping, removed, **options)


def ggn_of(problem: Problem) -> DenseCurvature:
    return DenseCurvature(assemble_ggn(problem))


def changes(problem: Problem, found: pbrf.ProximalResponses) -> np.ndarray:
    return measure(problem, found.outputs) - measure(problem, found.base_outputs[None])


@pytest.fixture(scope="module")
def network() -> tuple[Problem, dict[str, Curvature]]:
    """A network trained on labels that can mostly be learnt; H and G differ."""
    problem = cases.classification(mlp((4, 6, 3), torch.nn.Tanh, 0), n=60)
    x, y = problem.train
    problem = replace(problem, train=(x, torch.where(torch.arange(60) % 6 == 0, y, learnt(x))))
    problem = replace(problem, query=(problem.query[0], learnt(problem.query[0])))
    recipe = Recipe(lr=0.1, epochs=30, batch_size=10, dtype="float64")
    trained = replace(problem, recipe=recipe).trained()
    chain = build_chain(trained)
    return trained, {name: chain[name] for name in ("hessian", "ggn")}


def test_linear_regression_has_the_ridge_closed_form() -> None:
    """(G − JᵢᵀΛJᵢ/N + λI) δ = gᵢ/N, written with NumPy alone."""
    problem = cases.linear_regression()
    found = responses(problem)
    x, y = (part.numpy() for part in problem.train)
    xq, yq = (part.numpy() for part in problem.query)
    w, b = (p.detach().numpy() for p in problem.model.parameters())
    ones, ones_q = np.c_[x, np.ones(len(x))], np.c_[xq, np.ones(len(xq))]
    base, gram = np.c_[w, b], ones.T @ ones  # mean over 2 outputs: Λ = I
    for i in range(len(x)):
        left = (gram - np.outer(ones[i], ones[i])) / len(x) + LAMBDA * np.eye(5)
        slope = np.outer(base @ ones[i] - y[i], ones[i]) / len(x)
        moved = base + np.linalg.solve(left, slope.T).T
        np.testing.assert_allclose(found.outputs[i], ones_q @ moved.T, rtol=0, atol=1e-7)
    assert found.converged.all()
    loss = (ones_q @ base.T - yq).__pow__(2).mean(1)
    np.testing.assert_allclose(measure(problem, found.base_outputs[None])[0], loss, rtol=1e-12)


def test_with_a_vanishing_weight_the_ggns_influence_is_exact(
    network: tuple[Problem, dict[str, Curvature]],
) -> None:
    """δ → w (G + λI)⁻¹ gᵢ / N: the outputs' derivative in w, by two small weights."""
    problem, rungs = network
    tau = influence_scores(problem, rungs["ggn"], LAMBDA).numpy()
    errors = []
    for weight in (1e-2, 1e-3):
        change = changes(problem, responses(problem, step=5, weight=weight)) / weight
        errors.append(np.abs(change.T - tau[:, ::5]).max() / np.abs(tau).max())
    assert errors[1] < 3e-3
    assert errors[1] < 0.15 * errors[0]


def test_of_a_linear_model_influence_is_exact_to_first_order() -> None:
    """Relative to the score, what is left is a leverage, of order 1/N: the same data, repeated."""
    problem, error = cases.linear_regression(), []
    for copies in (4, 16, 64):
        x, y = (part.repeat(copies, 1) for part in problem.train)
        many = replace(problem, train=(x, y))
        tau = influence_scores(many, ggn_of(many), LAMBDA).numpy()[:, :24]
        found = proximal_responses(many, ggn_of(many), LAMBDA, np.arange(24))
        error.append(np.linalg.norm(changes(many, found).T - tau) / np.linalg.norm(tau))
    assert error[1] / error[0] == pytest.approx(1 / 4, rel=0.2)
    assert error[2] / error[1] == pytest.approx(1 / 4, rel=0.1)


def test_the_ggn_predicts_it_and_the_hessian_less_well(
    network: tuple[Problem, dict[str, Curvature]],
) -> None:
    problem, rungs = network
    found = responses(problem)
    assert found.converged.all()
    change, level = changes(problem, found), {}
    for name, rung in rungs.items():
        tau = influence_scores(problem, rung, LAMBDA).numpy()
        rho = [stats.spearmanr(tau[q], change[:, q]).statistic for q in range(len(tau))]
        level[name] = np.mean(rho)
    assert level["ggn"] > 0.99
    assert level["ggn"] > level["hessian"] + 0.01


def test_the_responses_do_not_depend_on_the_metric(
    network: tuple[Problem, dict[str, Curvature]],
) -> None:
    problem, _ = network
    found = responses(problem, step=4)
    ekfac = build_chain(problem)["ekfac"]
    assert isinstance(ekfac, Diagonalised)
    other = proximal_responses(problem, ekfac, LAMBDA, found.removed)
    assert other.converged.all()
    scale = np.abs(changes(problem, found)).max()
    np.testing.assert_allclose(other.outputs, found.outputs, rtol=0, atol=100 * TOLERANCE * scale)


def test_chunks_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cases.linear_softmax()
    alone = responses(problem)
    kept = responses(problem, folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4  # outputs and residuals of 20 and of 4 examples
    files[0].unlink()
    mended = responses(problem, folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == files

    def solve(self: object, removed: Tensor) -> None:
        raise AssertionError("solved again")

    monkeypatch.setattr(pbrf._Solver, "solve", solve)
    every = np.arange(problem.num_examples)
    assert responses_left(problem, LAMBDA, every, folder=tmp_path) == 0
    assert responses_left(problem, 2 * LAMBDA, every, folder=tmp_path) == problem.num_examples
    read = responses(problem, folder=tmp_path)
    np.testing.assert_array_equal(read.outputs, mended.outputs)
    np.testing.assert_array_equal(read.residual, mended.residual)
    for other in (kept, mended):
        np.testing.assert_allclose(other.outputs, alone.outputs, rtol=0, atol=1e-9)


def test_another_question_is_another_key(tmp_path: Path) -> None:
    problem = cases.linear_softmax()
    responses(problem, folder=tmp_path)
    count = len(list(tmp_path.iterdir()))
    theta = problem.theta() * 1.01
    moved = problem.double_model()
    torch.nn.utils.vector_to_parameters(theta, moved.parameters())
    others = [
        lambda: responses(problem, 2 * LAMBDA, folder=tmp_path),
        lambda: responses(problem, weight=0.5, folder=tmp_path),
        lambda: responses(replace(problem, model=moved), folder=tmp_path),
    ]
    for other in others:
        other()
        count += 4
        assert len(list(tmp_path.iterdir())) == count


def test_the_code_behind_a_response_is_in_its_key() -> None:
    """The metric and the store decide how the answer is found and kept, not what it is."""
    behind = {part for file in SOURCE[:1] + SOURCE[2:] for part in import_closure(file)}
    assert SOURCE[1] == "targets/pbrf.py"
    assert behind <= {*SOURCE, *import_closure("problem.py")}


def test_perfectly_fitted_examples_count_as_solved() -> None:
    """A gradient that rounding has eaten cannot be brought down by any factor."""
    problem = cases.linear_regression()
    x, y = problem.train
    y = y.clone()
    y[3] = problem.model(x[3:4]).detach()[0]
    found = responses(replace(problem, train=(x, y)))
    assert found.converged.all()
    np.testing.assert_allclose(found.outputs[3], found.base_outputs, rtol=0, atol=1e-12)


def test_responses_that_do_not_converge_are_left_out_and_named(
    network: tuple[Problem, dict[str, Curvature]],
) -> None:
    problem, rungs = network
    plan = BankPlan()
    found = measure_proximal_responses(problem, rungs["ggn"], 0.1, plan, 20, None, False)
    count = int(found.attributes["pbrf_unconverged"])
    assert count > 0
    assert len(found.truth) == len(found.weights) == len(found.bank.masks) == 20 - count
    assert np.isfinite(found.truth).all()
    assert f"{count} of 20 proximal responses did not converge" in found.notes[1]


def test_too_few_responses_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cases.linear_softmax()
    monkeypatch.setattr(pbrf, "TOLERANCE", 1e-30)
    with pytest.raises(DecompositionError, match=r"0 of 4 proximal .* raise pbrf_damping"):
        measure_proximal_responses(problem, ggn_of(problem), 1.0, BankPlan(), 4, None, False)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan"), float("inf")])
def test_a_damping_out_of_range_is_named(damping: float) -> None:
    with pytest.raises(DecompositionError, match="must be positive and finite"):
        responses(cases.linear_regression(), damping)


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_a_weight_out_of_range_is_named(weight: float) -> None:
    with pytest.raises(DecompositionError, match=r"must lie in \(0, 1\]"):
        responses(cases.linear_regression(), weight=weight)


def test_gradients_that_start_the_responses_are_the_scores_own() -> None:
    """The first step is the influence function: one iteration of a linear softmax, w → 0."""
    problem = cases.linear_softmax()
    weight = 1e-4
    change = responses(problem, weight=weight).outputs - responses(problem).base_outputs
    ggn, g = ggn_of(problem), loss_gradients(problem).train
    delta = ggn.solve(g, LAMBDA) / problem.num_examples
    x = torch.cat([problem.query[0], torch.ones(problem.num_queries, 1)], 1)
    for i in range(problem.num_examples):
        moved = torch.cat([delta[:12, i].view(3, 4), delta[12:, i, None]], 1)
        np.testing.assert_allclose(change[i] / weight, x @ moved.T, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("case", "form"),
    [("cnn", "dual"), ("attention", "dual"), ("cnn", "products"), ("tagging", "products")],
)
def test_without_an_eigenbasis_of_the_ggn_the_responses_are_the_same(case: str, form: str) -> None:
    """EK-FAC's coordinates, Newton's steps with G in dual form or by conjugate gradients."""
    problem = GENERAL[case]()
    chain = build_chain(problem)
    ekfac = chain["ekfac"]
    assert isinstance(ekfac, Diagonalised)
    product = ggn_product(problem)
    ggn = {
        "dual": lambda: dual_rungs(problem)[0],
        "products": lambda: MatrixFreeCurvature(product, ekfac, definite=True),
    }[form]()
    dense = chain["ggn"]
    damping, removed = 30.0 * dense.trace() / problem.num_parameters, np.array([0, 5])
    assert isinstance(dense, Diagonalised)
    expected = proximal_responses(problem, dense, damping, removed, 0.2)
    found = proximal_responses(problem, ekfac, damping, removed, 0.2, ggn=ggn)
    assert expected.converged.all()
    assert found.converged.all()
    scale = np.abs(expected.outputs - expected.base_outputs).max()
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=20 * TOLERANCE * scale)


def test_the_damping_of_ekfac_is_that_of_the_ggn() -> None:
    """Their traces agree, so that a run without dense matrices asks the same question."""
    problem = GENERAL["sequence"]()
    chain = build_chain(problem)
    of = [
        measure_proximal_responses(problem, chain["ggn"], 100.0, BankPlan(), 4, None, False),
        measure_proximal_responses(
            problem, chain["ekfac"], 100.0, BankPlan(), 4, None, False, chain["ggn"]
        ),
    ]
    assert of[0].attributes["pbrf_damping"] == of[1].attributes["pbrf_damping"]
    np.testing.assert_allclose(of[1].truth, of[0].truth, rtol=0, atol=1e-4 * abs(of[0].truth).max())


def test_large_models_are_solved_a_few_examples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [pbrf.together(p) for p in (1_000, 100_000, 1_000_000, 10**8)] == [20, 20, 4, 1]
    problem = cases.linear_softmax()
    expected = responses(problem)
    monkeypatch.setattr(pbrf, "NUMBERS", 3 * pbrf.COPIES * problem.num_parameters)
    assert pbrf.together(problem.num_parameters) == 3
    found = responses(problem)
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=1e-9)
