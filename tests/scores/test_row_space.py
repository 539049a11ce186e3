"""Scores of G and its blocks by what their rows see of the gradients, against their matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature import Curvature, UnderPolicy
from decomposition.curvature.block_products import row_images
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.gram import block_rows
from decomposition.curvature.inversion import per_layer
from decomposition.damping import Truncate
from decomposition.problem import Problem
from decomposition.scores import gradients
from decomposition.scores import row_space as module
from decomposition.scores.gradients import StreamedGradients, loss_gradients
from decomposition.scores.row_space import RowScorer
from decomposition.scores.scorer import Scorer
from decomposition.scores.scorers import scorers_of
from decomposition.scores.solving import SolvingScorer
from tests.curvature.wide import WIDE

Rungs = dict[str, Curvature]


@pytest.fixture(scope="module", params=list(WIDE))
def problem(request: pytest.FixtureRequest) -> Problem:
    return WIDE[request.param]()


@pytest.fixture(scope="module")
def chain(problem: Problem) -> Rungs:
    return build_chain(problem)


@pytest.fixture(scope="module")
def rungs(problem: Problem) -> Rungs:
    return dict(zip(("ggn", "block_ggn"), dual_rungs(problem), strict=True))


@pytest.fixture(scope="module")
def masks(problem: Problem) -> np.ndarray:
    return np.random.default_rng(0).random((7, problem.num_examples)) < 0.5


def scorer(problem: Problem, rung: Curvature) -> Scorer:
    """By rows, unless all blocks are small enough to be matrices."""
    found = scorers_of({"it": rung}, StreamedGradients(problem))["it"]
    assert isinstance(found, RowScorer) == (rung.eigenbasis is None)
    return found


def expected(problem: Problem, rung: Curvature) -> Scorer:
    return scorers_of({"it": rung}, loss_gradients(problem))["it"]


def check(mine: np.ndarray, exact: np.ndarray, rtol: float = 2e-6) -> None:
    np.testing.assert_allclose(mine, exact, rtol=0, atol=rtol * np.abs(exact).max())


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("name", ["ggn", "block_ggn"])
def test_scores_and_effects_are_those_of_the_matrix(
    problem: Problem, chain: Rungs, rungs: Rungs, masks: np.ndarray, name: str, share: float
) -> None:
    damping = share * float(chain[name].eigenvalues()[-1])
    mine, exact = scorer(problem, rungs[name]), expected(problem, chain[name])
    mine.prepare(masks, [damping], [damping], "absolute")
    check(mine.scores(damping), exact.scores(damping))
    check(mine.predicted_effects(masks, damping), exact.predicted_effects(masks, damping), 1e-5)


def test_a_small_damping_is_solved(problem: Problem, rungs: Rungs, masks: np.ndarray) -> None:
    """Where the two terms cancel: together for effects and scores, as the solver finds them."""
    rung, source = rungs["ggn"], StreamedGradients(problem)
    largest = float(rung.eigenvalues()[-1])
    small = [1e-8 * largest, 1e-3 * largest]
    mine, solving = scorer(problem, rung), SolvingScorer(rung, source)
    for one in (mine, solving):
        one.prepare(masks, small, small, "absolute")
    np.testing.assert_array_equal(mine.scores(small[0]), solving.scores(small[0]))
    check(mine.scores(small[1]), solving.scores(small[1]))
    np.testing.assert_array_equal(
        mine.predicted_effects(masks, small[0]), solving.predicted_effects(masks, small[0])
    )


def test_layers_add_up(problem: Problem, rungs: Rungs, chain: Rungs, masks: np.ndarray) -> None:
    layers = [block.slice for block in problem.blocks]
    mine, exact = (f(problem, r["block_ggn"]) for f, r in ((scorer, rungs), (expected, chain)))
    parts = mine.partial_effects(masks, 0.1, layers)
    check(parts, exact.partial_effects(masks, 0.1, layers), 1e-5)
    check(parts.sum(0), mine.predicted_effects(masks, 0.1), 1e-5)
    halves = [slice(0, layers[0].stop), slice(layers[0].stop, problem.num_parameters)]
    check(mine.partial_effects(masks, 0.1, halves).sum(0), parts.sum(0), 1e-5)


def test_other_inverses_are_theirs(problem: Problem, chain: Rungs, rungs: Rungs) -> None:
    layers = {block.name: block.slice for block in problem.blocks}
    for change in (
        lambda rung: per_layer(rung, layers),
        lambda rung: UnderPolicy(rung, Truncate(1e-3)),
    ):
        mine, exact = change(rungs["block_ggn"]), change(chain["block_ggn"])
        check(scorer(problem, mine).scores(0.1), expected(problem, exact).scores(0.1))


def test_a_singular_rung_has_no_scores_and_says_why(problem: Problem, rungs: Rungs) -> None:
    found = scorer(problem, rungs["ggn"])
    assert np.isnan(found.scores(0.0)).all()
    (said,) = found.unsolved.values()
    assert "damping=0" in said


def test_what_does_not_fit_is_solved(
    problem: Problem, rungs: Rungs, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = scorer(problem, rungs["ggn"])
    monkeypatch.setattr(module, "KEPT_NUMBERS", 1)
    found = scorers_of({"it": rungs["ggn"]}, StreamedGradients(problem))["it"]
    assert isinstance(found, SolvingScorer)
    check(found.scores(0.1), kept.scores(0.1))


def test_gradients_are_held_some_at_a_time(
    problem: Problem, rungs: Rungs, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = scorer(problem, rungs["block_ggn"]).scores(0.1)
    monkeypatch.setattr(module, "HELD_NUMBERS", 1)
    monkeypatch.setattr(gradients, "GRADIENT_NUMBERS", 2 * problem.num_parameters)
    check(scorer(problem, rungs["block_ggn"]).scores(0.1), at_once)


def test_images_are_those_of_the_rows(problem: Problem) -> None:
    """R v of every layer from one sweep; of a part that cuts through a tensor there are none."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, 3, generator=generator, dtype=torch.float64)
    images = row_images(problem, [block.slice for block in problem.blocks], v)
    assert images is not None
    for block, image in zip(problem.blocks, images, strict=True):
        torch.testing.assert_close(image, block_rows(problem, block) @ v[block.slice])
    assert row_images(problem, [slice(0, 1)], v) is None
