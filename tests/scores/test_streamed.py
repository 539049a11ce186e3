"""Scores by forward-mode sweeps against those of the matrix of training gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import hessian_product
from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.scores import streamed as streamed_module
from decomposition.scores.gradients import (
    influence_scores,
    score_grid,
    target_gradients,
)
from decomposition.scores.streamed import StreamedScores
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
    found = StreamedScores(problem)(curvature, 1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_scores_of_margins_are_those_of_their_gradients() -> None:
    problem = general.cnn()
    ekfac = build_chain(problem)["ekfac"]
    expected = next(score_grid(ekfac, target_gradients(problem, "margin"), [1e-2]))
    found = StreamedScores(problem, "margin")(ekfac, 1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    with pytest.raises(ProblemError, match="margin"):
        StreamedScores(cases.tanh_regression(), "margin")


def test_queries_in_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = general.cnn()
    curvature = build_chain(problem)["ekfac"]
    expected = StreamedScores(problem)(curvature, 1e-2)
    monkeypatch.setattr(streamed_module, "QUERY_NUMBERS", 2 * problem.num_parameters)
    found = StreamedScores(problem)(curvature, 1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_scores_of_matrix_free_and_dual_rungs_are_those_of_the_dense_chain() -> None:
    problem = plain()
    chain = build_chain(problem)
    scores = StreamedScores(problem)
    hessian = MatrixFreeCurvature(hessian_product(problem), chain["ekfac"], tolerance=1e-12)
    for found, name in (
        (hessian, "hessian"),
        *zip(dual_rungs(problem), ("ggn", "block_ggn"), strict=True),
    ):
        expected = influence_scores(problem, chain[name], 1e-1, "signed")
        torch.testing.assert_close(scores(found, 1e-1, "signed"), expected, rtol=1e-8, atol=1e-9)
