"""Dense H and G against closed forms, torch.func and curvlinops, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from decomposition.curvature import terms
from decomposition.curvature.assembly import assemble_ggn, assemble_hessian
from decomposition.problem import Problem
from tests import cases
from tests.oracles import autograd, closed_form

CLOSED_FORM, CROSS_LIBRARY = 1e-8, 1e-6


def _close(actual: torch.Tensor, expected: torch.Tensor | np.ndarray, tolerance: float) -> None:
    expected = torch.as_tensor(expected)
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * scale)


def test_linear_softmax_has_the_textbook_hessian() -> None:
    problem = cases.linear_softmax()
    expected = closed_form.linear_softmax_hessian(problem)
    _close(assemble_hessian(problem), expected, CLOSED_FORM)
    _close(assemble_ggn(problem), expected, CLOSED_FORM)


def test_linear_regression_has_the_second_moments_of_its_inputs() -> None:
    problem = cases.linear_regression()
    _close(assemble_hessian(problem), closed_form.linear_regression_hessian(problem), CLOSED_FORM)


def test_two_layer_network_matches_the_hand_written_derivatives() -> None:
    problem = cases.tanh_regression()
    hessian, ggn = closed_form.two_layer_tanh_regression(problem)
    _close(assemble_hessian(problem), hessian, CLOSED_FORM)
    _close(assemble_ggn(problem), ggn, CLOSED_FORM)


def test_hessian_equals_torch_func(problem: Problem) -> None:
    _close(assemble_hessian(problem), autograd.hessian(problem), CLOSED_FORM)


def test_ggn_equals_torch_func(problem: Problem) -> None:
    _close(assemble_ggn(problem), autograd.ggn(problem), CLOSED_FORM)


@pytest.mark.parametrize("case", ["gelu", "tanh_regression", "residual"])
def test_curvlinops_agrees(case: str) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    problem = cases.CASES[case]()
    model = problem.double_model()
    x, y = problem.train
    loss = nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss()
    arguments = (model, loss, list(model.parameters()), [(x.double(), y)])
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    _close(
        assemble_hessian(problem), curvlinops.HessianLinearOperator(*arguments) @ eye, CROSS_LIBRARY
    )
    _close(assemble_ggn(problem), curvlinops.GGNLinearOperator(*arguments) @ eye, CROSS_LIBRARY)


@pytest.mark.parametrize("assemble", [assemble_ggn, assemble_hessian])
def test_splitting_into_batches_changes_nothing(
    problem: Problem, assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = assemble(problem)
    monkeypatch.setattr(terms, "BATCH_BYTES", 8 * 40 * 5)
    _close(assemble(problem), whole, 1e-12)


@pytest.mark.parametrize("assemble", [assemble_ggn, assemble_hessian])
def test_order_and_duplication_of_examples_change_nothing(problem: Problem, assemble) -> None:
    x, y = problem.train
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    twice = torch.cat([order, order])
    shuffled = Problem(problem.model, problem.loss, (x[twice], y[twice]), problem.query)
    _close(assemble(shuffled), assemble(problem), 1e-12)


@pytest.mark.parametrize("assemble", [assemble_ggn, assemble_hessian])
def test_float32_data_and_parameters_stay_within_single_precision(assemble) -> None:
    problem = cases.gelu()
    x, y = problem.train
    single = Problem(problem.double_model().float(), problem.loss, (x.float(), y), problem.query)
    assert assemble(single).dtype == torch.float64
    _close(assemble(single), assemble(problem), 1e-5)


def test_inplace_activations_do_not_corrupt_the_layer_inputs() -> None:
    plain = cases.relu()
    model = nn.Sequential(
        *(nn.ReLU(inplace=True) if isinstance(m, nn.ReLU) else m for m in plain.model.children())
    )
    inplace = Problem(model, plain.loss, plain.train, plain.query)
    _close(assemble_hessian(inplace), assemble_hessian(plain), 1e-12)
    _close(assemble_ggn(inplace), assemble_ggn(plain), 1e-12)
