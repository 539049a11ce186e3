"""The proximal Bregman objective: its gradient, its curvature, its divergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from decomposition import Problem
from decomposition.curvature.assembly import assemble_ggn
from decomposition.inputs import apply, apply_with
from decomposition.scores.gradients import loss_gradients
from decomposition.targets.proximal import ProximalObjective
from tests.cases import CASES
from tests.general import GENERAL
from tests.memory import memory_for

LAMBDA = 0.3


def plain_objective(problem: Problem, theta: Tensor, removed: int, weight: float) -> Tensor:
    """Written with torch's own divergences."""
    model, x, y = problem.double_model(), problem.train[0], problem.train[1]
    trained = problem.theta()
    parts = theta.split([p.numel() for p in model.parameters()])
    named = {
        name: part.view_as(p)
        for (name, p), part in zip(model.named_parameters(), parts, strict=True)
    }
    f, anchor = functional_call(model, named, (x,)), model(x).detach()
    if problem.loss_function.name == "mse":
        divergence = (f - anchor).square().mean()
        loss = (f - y)[removed].square().mean()
    else:
        divergence = torch.nn.functional.kl_div(
            f.log_softmax(-1), anchor.log_softmax(-1), reduction="batchmean", log_target=True
        )
        loss = torch.nn.functional.cross_entropy(f[removed], y[removed])
    distance = (theta - trained).square().sum()
    return divergence - weight * loss / len(x) + 0.5 * LAMBDA * distance


@pytest.mark.parametrize("case", ["deep_linear", "linear_softmax", "gelu", "residual"])
def test_gradient_is_that_of_the_objective(case: str) -> None:
    problem = CASES[case]()
    generator = torch.Generator().manual_seed(0)
    delta = 0.3 * torch.randn(3, problem.num_parameters, generator=generator, dtype=torch.float64)
    removed = torch.tensor([0, 7, 23])
    found = ProximalObjective(problem, LAMBDA).gradient(delta, removed, 0.7)
    for k in range(3):
        theta = (problem.theta() + delta[k]).requires_grad_()
        value = plain_objective(problem, theta, int(removed[k]), 0.7)
        (expected,) = torch.autograd.grad(value, theta)
        torch.testing.assert_close(found[k], expected, rtol=1e-9, atol=1e-12)


def test_gradient_does_not_depend_on_the_rows_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = CASES["gelu"]()
    delta = 0.1 * torch.ones(2, problem.num_parameters, dtype=torch.float64)
    objective, removed = ProximalObjective(problem, LAMBDA), torch.tensor([3, 20])
    expected = objective.gradient(delta, removed)
    monkeypatch.setattr("decomposition.targets.proximal.ROWS", 10)
    slow = ProximalObjective(problem, LAMBDA)
    torch.testing.assert_close(slow.gradient(delta, removed), expected)
    torch.testing.assert_close(slow.query_outputs(delta), objective.query_outputs(delta))


@pytest.mark.parametrize("case", ["cnn", "conv2d_strided"])
def test_examples_that_do_not_fit_are_taken_a_few_at_a_time(case: str) -> None:
    problem = GENERAL[case]()
    delta = 0.1 * torch.ones(2, problem.num_parameters, dtype=torch.float64)
    objective, removed = ProximalObjective(problem, LAMBDA), torch.tensor([3, 7])
    expected, outputs = objective.gradient(delta, removed), objective.query_outputs(delta)
    with memory_for(2 * problem.num_parameters) as refused:
        found = objective.gradient(delta, removed)
        assert refused
        torch.testing.assert_close(objective.query_outputs(delta), outputs, rtol=0, atol=1e-13)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", ["cnn", "attention", "frozen", "tied", "named_inputs"])
def test_any_model_has_the_gradient_of_the_objective(case: str) -> None:
    problem = GENERAL[case]()
    generator = torch.Generator().manual_seed(0)
    delta = 0.3 * torch.randn(2, problem.num_parameters, generator=generator, dtype=torch.float64)
    removed = torch.tensor([0, problem.num_examples - 1])
    objective, model = ProximalObjective(problem, LAMBDA), problem.double_model()
    found, outputs = objective.gradient(delta, removed, 0.7), objective.query_outputs(delta)
    (x, y), anchor = problem.train, apply(model, problem.train[0]).detach()
    for k in range(2):
        theta = (problem.theta() + delta[k]).requires_grad_()
        sizes = [model.get_parameter(name).numel() for name in problem.trainable]
        named = {
            name: part.view_as(model.get_parameter(name))
            for name, part in zip(problem.trainable, theta.split(sizes), strict=True)
        }
        f = apply_with(model, named, x)
        divergence = torch.nn.functional.kl_div(
            f.log_softmax(-1), anchor.log_softmax(-1), reduction="batchmean", log_target=True
        )
        loss = torch.nn.functional.cross_entropy(f[removed[k]], y[removed[k]]) / len(y)
        value = divergence - 0.7 * loss + 0.5 * LAMBDA * delta[k].square().sum()
        value = value + LAMBDA * (delta[k] * (theta - theta.detach())).sum()
        (expected,) = torch.autograd.grad(value, theta)
        torch.testing.assert_close(found[k], expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(outputs[k], apply_with(model, named, problem.query[0]).detach())


def test_at_the_trained_parameters_it_is_the_removed_examples_gradient(problem: Problem) -> None:
    removed = torch.arange(problem.num_examples)[::5]
    zero = torch.zeros(len(removed), problem.num_parameters, dtype=torch.float64)
    found = ProximalObjective(problem, LAMBDA).gradient(zero, removed)
    expected = -loss_gradients(problem).train.T[removed] / problem.num_examples
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_its_curvature_there_is_the_damped_ggn(problem: Problem) -> None:
    """With no weight removed; by central differences of the gradient."""
    objective, step = ProximalObjective(problem, LAMBDA), 1e-5
    directions = step * torch.eye(problem.num_parameters, dtype=torch.float64)
    which = torch.zeros(problem.num_parameters, dtype=torch.long)
    ahead = objective.gradient(directions, which, 0.0)
    behind = objective.gradient(-directions, which, 0.0)
    expected = assemble_ggn(problem) + LAMBDA * torch.eye(
        problem.num_parameters, dtype=torch.float64
    )
    np.testing.assert_allclose((ahead - behind) / (2 * step), expected, rtol=0, atol=1e-8)


def test_query_outputs_are_the_models(problem: Problem) -> None:
    delta = torch.zeros(2, problem.num_parameters, dtype=torch.float64)
    found = ProximalObjective(problem, LAMBDA).query_outputs(delta)
    expected = problem.double_model()(problem.query[0].double()).detach()
    torch.testing.assert_close(found, expected.expand(2, -1, -1), rtol=1e-12, atol=1e-12)
