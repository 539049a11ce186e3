"""The margin: its gradients, its sign, and what it has in common with the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from decomposition import Settings, run
from decomposition.errors import DecompositionError, ProblemError
from decomposition.losses import CrossEntropy
from decomposition.scores.gradients import loss_gradients, target_gradients
from decomposition.targets.functions import Margin, measure
from tests import cases


def test_the_margin_of_outputs_is_the_margin_that_is_measured() -> None:
    problem = cases.gelu()
    outputs = problem.double_model()(problem.query[0]).detach()
    expected = measure(problem, outputs.numpy()[None], "margin")[0]
    np.testing.assert_allclose(Margin().per_example(outputs, problem.query[1]), expected, rtol=0)


@pytest.mark.parametrize("case", ["linear_softmax", "gelu", "residual"])
def test_gradient_is_that_of_the_loss_by_minus_one_minus_p(case: str) -> None:
    problem = cases.CASES[case]()
    x, y = problem.query
    p = problem.double_model()(x).detach().softmax(-1)[torch.arange(len(y)), y]
    found, loss = target_gradients(problem, "margin"), loss_gradients(problem)
    torch.testing.assert_close(found.query, -loss.query / (1 - p), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.train, loss.train, rtol=0, atol=0)


def test_gradient_of_a_certain_label_keeps_its_digits() -> None:
    """1 − p rounds to nothing at a margin of 40; the gradient of f_y stays 1."""
    f = torch.tensor([[40.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Margin().per_example(f, torch.tensor([0])).sum(), f)
    rest = np.exp([0.0, -1.0]) / np.exp([0.0, -1.0]).sum()
    np.testing.assert_allclose(gradient[0], [1.0, *-rest], rtol=1e-15)


def test_margin_of_one_model_is_a_decreasing_function_of_its_loss() -> None:
    problem = cases.gelu()
    outputs = np.random.default_rng(0).normal(size=(50, problem.num_queries, 3))
    margin, loss = measure(problem, outputs, "margin"), measure(problem, outputs)
    np.testing.assert_allclose(margin, -np.log(np.expm1(loss)), rtol=1e-10, atol=1e-12)


def test_the_margin_has_no_curvature() -> None:
    with pytest.raises(DecompositionError, match="train on a loss"):
        Margin().hessian(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    assert isinstance(Margin(), CrossEntropy)


def test_a_regression_has_no_margin() -> None:
    problem = cases.tanh_regression()
    message = "target 'margin' needs classes, but the loss is mse: use target 'loss'"
    with pytest.raises(ProblemError, match=message):
        target_gradients(problem, "margin")
    with pytest.raises(ProblemError, match=message):
        run(replace(problem, initial=None), settings=Settings(target="margin"), progress=False)
