"""Gradients that are made when asked for, or read, against those that lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import build_chain
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import hessian_product
from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.scores import gradients as gradients_module
from decomposition.scores.gradients import (
    StreamedGradients,
    influence_scores,
    score_grid,
    target_gradients,
)
from tests import cases, general
from tests.curvature.wide import plain

PROBLEMS: dict[str, Callable[[], Problem]] = {
    case.__name__: case
    for case in (cases.tanh, cases.tanh_regression, general.cnn, general.tied, general.named_inputs)
}


@pytest.fixture(scope="module", params=list(PROBLEMS))
def problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param]()


@pytest.mark.parametrize("rung", ["ggn", "kfac"])
def test_streamed_scores_are_influence_scores(problem: Problem, rung: str) -> None:
    curvature = build_chain(problem)[rung]
    expected = influence_scores(problem, curvature, 1e-2)
    found = StreamedGradients(problem).scores(curvature, 1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_scores_of_margins_are_those_of_their_gradients() -> None:
    problem = general.cnn()
    ekfac = build_chain(problem)["ekfac"]
    expected = next(score_grid(ekfac, target_gradients(problem, "margin"), [1e-2]))
    found = StreamedGradients(problem, "margin").scores(ekfac, 1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    with pytest.raises(ProblemError, match="margin"):
        StreamedGradients(cases.tanh_regression(), "margin")


def test_queries_in_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = general.cnn()
    curvature = build_chain(problem)["ekfac"]
    expected = StreamedGradients(problem).scores(curvature, 1e-2)
    monkeypatch.setattr(gradients_module, "QUERY_NUMBERS", 2 * problem.num_parameters)
    found = StreamedGradients(problem).scores(curvature, 1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_scores_of_matrix_free_and_dual_rungs_are_those_of_the_dense_chain() -> None:
    problem = plain()
    chain = build_chain(problem)
    source = StreamedGradients(problem)
    hessian = MatrixFreeCurvature(hessian_product(problem), chain["ekfac"], tolerance=1e-12)
    for found, name in (
        (hessian, "hessian"),
        *zip(dual_rungs(problem), ("ggn", "block_ggn"), strict=True),
    ):
        expected = influence_scores(problem, chain[name], 1e-1, "signed")
        torch.testing.assert_close(
            source.scores(found, 1e-1, "signed"), expected, rtol=1e-8, atol=1e-9
        )


MEMORY = 1e-6
"""GiB: a thousand bytes, in which no gradients fit."""


def test_influence_scores_are_the_same_whatever_fits(problem: Problem, tmp_path: Path) -> None:
    curvature = build_chain(problem)["hessian"]
    expected = influence_scores(problem, curvature, 1e-2)
    for place in (None, tmp_path, tmp_path):
        found = influence_scores(problem, curvature, 1e-2, memory=MEMORY, folder=place)
        near = {"rtol": 1e-8, "atol": 1e-10} if place is None else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(found, expected, **near)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    influence_scores(problem, curvature, 1e-2, folder=tmp_path / "none")  # fits: nothing is written
    assert not (tmp_path / "none").exists()


def half_of_square(f: Tensor, y: Tensor) -> Tensor:
    return 0.5 * f.square().sum(1) - f[:, 0].square()  # not convex, and no matter


@pytest.mark.parametrize("memory", [None, MEMORY])
def test_any_function_of_the_outputs_is_differentiated_on_the_queries(memory: float | None) -> None:
    problem = cases.tanh()
    ggn = build_chain(problem)["ggn"]
    x, y = problem.query
    model = problem.double_model()
    every = [
        torch.autograd.grad(half_of_square(model(row[None]), y[:1])[0], [*model.parameters()])
        for row in x
    ]
    gradients = torch.stack([torch.cat([g.flatten() for g in one]) for one in every])
    train = target_gradients(problem).train
    expected = gradients @ ggn.solve(train, 0.1) / problem.num_examples
    found = influence_scores(problem, ggn, 0.1, function=half_of_square, memory=memory)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_the_loss_as_a_function_gives_the_scores_of_the_loss() -> None:
    problem = cases.tanh()
    ggn = build_chain(problem)["ggn"]
    cross_entropy = partial(nn.functional.cross_entropy, reduction="none")
    found = influence_scores(problem, ggn, 0.1, function=cross_entropy)
    torch.testing.assert_close(found, influence_scores(problem, ggn, 0.1), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("logit", "'loss' or 'margin', or a function .* got 'logit'"),
        (lambda f, y: f.mean(), "one number for each"),
        (lambda f, y: f.detach().sum(1), "does not depend on the outputs by autograd"),
        (lambda f, y: (f - f.mean(0)).square().sum(1), "must depend on that example alone"),
    ],
)
def test_a_query_function_that_has_no_gradient_of_a_query_is_refused(
    function: object, said: str
) -> None:
    problem = cases.tanh()
    with pytest.raises(ProblemError, match=said):
        influence_scores(problem, build_chain(problem)["kfac"], 0.1, function=function)  # type: ignore[arg-type]
