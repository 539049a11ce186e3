"""The same scores and effects in every way of making them: spectral, by sums, in Krylov spaces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.chain.plan import plan_chain
from decomposition.curvature import Curvature, UnderPolicy
from decomposition.curvature.block_products import block_ggn_product
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import hessian_product
from decomposition.damping import Truncate
from decomposition.problem import Problem
from decomposition.scores import krylov as krylov_module
from decomposition.scores import spectral as module
from decomposition.scores.gradients import StreamedGradients, loss_gradients
from decomposition.scores.krylov import KrylovScorer
from decomposition.scores.scorer import Scorer
from decomposition.scores.scorers import scorers_of
from decomposition.scores.solving import SolvingScorer
from decomposition.scores.spectral import RotatedGradients, SpectralScorer
from tests import cases

DAMPINGS = (0.03, 0.3)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return cases.tanh().trained()


@pytest.fixture(scope="module")
def chain(problem: Problem) -> Mapping[str, Curvature]:
    return build_chain(problem)


@pytest.fixture(scope="module")
def masks(problem: Problem) -> np.ndarray:
    return np.random.default_rng(0).random((7, problem.num_examples)) < 0.5


def check(found: Scorer, expected: Scorer, masks: np.ndarray, rtol: float = 1e-4) -> None:
    for damping in DAMPINGS:
        for mine, exact in (
            (found.scores(damping), expected.scores(damping)),
            (found.predicted_effects(masks, damping), expected.predicted_effects(masks, damping)),
        ):
            np.testing.assert_allclose(mine, exact, rtol=0, atol=rtol * np.abs(exact).max())


def test_sums_over_subsets_are_enough(problem, chain, masks) -> None:
    basis, streamed = chain["ekfac"].eigenbasis, StreamedGradients(problem)
    assert basis is not None
    by_sums = SpectralScorer(basis.spectrum(), RotatedGradients(basis, streamed, streamed))
    expected = scorers_of({"ekfac": chain["ekfac"]}, loss_gradients(problem))["ekfac"]
    check(by_sums, expected, masks)
    parts = [slice(0, 20), slice(20, basis.size)]
    np.testing.assert_allclose(
        by_sums.partial_effects(masks, 0.1, parts),
        expected.partial_effects(masks, 0.1, parts),
        atol=1e-4,
    )


def test_many_dampings_share_a_pass_over_all_gradients(
    problem, chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = (*DAMPINGS, 3.0)
    basis, streamed, passes = chain["kfac"].eigenbasis, StreamedGradients(problem), []
    assert basis is not None
    along = StreamedGradients.along

    def counted(source: StreamedGradients, v: torch.Tensor) -> torch.Tensor:
        passes.append(v.shape[1])
        return along(source, v)

    monkeypatch.setattr(StreamedGradients, "along", counted)
    rotated = RotatedGradients(basis, streamed, streamed)
    monkeypatch.setattr(module, "DIRECTIONS", 2 * rotated.query.size)  # two dampings fit
    together, apart = (SpectralScorer(basis.spectrum(), rotated) for _ in range(2))
    together.prepare(None, three, three, "absolute")
    queries = problem.num_queries
    assert sum(passes) == queries * len(three)
    assert max(passes) == 2 * queries
    found = [together.scores(damping) for damping in three]
    assert len(passes) == 2
    for damping, mine in zip(three, found, strict=True):
        np.testing.assert_allclose(mine, apart.scores(damping), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("numbers", "kind"), [(2**28, SpectralScorer), (1, SolvingScorer)])
def test_streamed_gradients_are_rotated_where_they_fit(
    problem, chain, masks, monkeypatch: pytest.MonkeyPatch, numbers: int, kind: type
) -> None:
    monkeypatch.setattr(module, "ROTATED_NUMBERS", numbers)
    rungs = {"kfac": chain["kfac"]}
    found = scorers_of(rungs, StreamedGradients(problem), masks=len(masks))["kfac"]
    assert type(found) is kind
    check(found, scorers_of(rungs, loss_gradients(problem))["kfac"], masks)


def krylov(problem: Problem, **more: int) -> MatrixFreeCurvature:
    return MatrixFreeCurvature(hessian_product(problem), change=1e-6, keep=True, **more)


def test_krylov_spaces_give_the_scores_of_the_matrix(problem, chain, masks) -> None:
    rung = krylov(problem, krylov_steps=problem.num_parameters)
    found = scorers_of({"hessian": rung}, StreamedGradients(problem))["hessian"]
    assert isinstance(found, KrylovScorer)
    expected = scorers_of({"hessian": chain["hessian"]}, loss_gradients(problem))["hessian"]
    check(found, expected, masks)


def test_a_policy_of_its_own_is_that_of_its_spaces(problem, chain, masks) -> None:
    rung = UnderPolicy(krylov(problem, krylov_steps=problem.num_parameters), Truncate(1e-3))
    found = scorers_of({"mine": rung}, StreamedGradients(problem))["mine"]
    assert isinstance(found, KrylovScorer)
    exact = UnderPolicy(chain["hessian"], Truncate(1e-3))
    check(found, scorers_of({"mine": exact}, loss_gradients(problem))["mine"], masks)


def test_another_damping_takes_no_product_but_where_the_space_must_grow(problem, masks) -> None:
    rung = krylov(problem)
    found = scorers_of({"hessian": rung}, StreamedGradients(problem))["hessian"]
    found.prepare(masks, [3.0], [], "absolute")
    made = sum(one.products for one in rung.record)
    found.predicted_effects(masks, 4.0)
    assert sum(one.products for one in rung.record) == made
    found.scores(1e-3)
    assert sum(one.products for one in rung.record) >= made


def test_a_space_that_is_too_small_has_no_scores_and_says_why(problem, masks) -> None:
    rung = krylov(problem, krylov_steps=1)
    found = scorers_of({"hessian": rung}, StreamedGradients(problem))["hessian"]
    assert np.isnan(found.scores(1e-6)).all()
    (said,) = found.unsolved.values()
    assert "at damping 1e-06: solutions still change by" in said
    assert np.isnan(found.predicted_effects(masks, 1e-6)).all()


def test_parts_of_the_parameters_add_up(problem, masks) -> None:
    rung = krylov(problem, krylov_steps=problem.num_parameters)
    found = scorers_of({"hessian": rung}, StreamedGradients(problem))["hessian"]
    whole = found.predicted_effects(masks, 0.3)
    parts = [slice(0, 9), slice(9, problem.num_parameters)]
    both = found.partial_effects(masks, 0.3, parts).sum(0)
    np.testing.assert_allclose(both, whole, rtol=0, atol=1e-4 * float(np.abs(whole).max()))


@pytest.mark.parametrize("kept", [2**28, 0], ids=["kept", "solved again"])
def test_effects_through_layers_take_no_product_where_they_are_kept(
    problem, chain, masks, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(krylov_module, "COORDINATES", kept)
    layers = [block.slice for block in problem.blocks]
    rung = MatrixFreeCurvature(
        block_ggn_product(problem),
        definite=True,
        blocks=layers,
        change=1e-6,
        krylov_steps=problem.num_parameters,
    )
    found = scorers_of({"block_ggn": rung}, StreamedGradients(problem))["block_ggn"]
    found.prepare(masks, [0.3], [], "absolute")
    made = len(rung.record)
    effects = found.partial_effects(masks, 0.3, layers)
    assert (len(rung.record) == made) == bool(kept)
    exact = scorers_of({"block_ggn": chain["block_ggn"]}, loss_gradients(problem))["block_ggn"]
    expected = exact.partial_effects(masks, 0.3, layers)
    np.testing.assert_allclose(effects, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_plan_s_hessian_is_scored_in_spaces(problem) -> None:
    rungs = build_chain(problem, plan=plan_chain(problem, 1))
    found = scorers_of(rungs, StreamedGradients(problem))
    assert isinstance(found["hessian"], KrylovScorer)
    assert isinstance(found["kfac"], SpectralScorer)
    assert torch.isfinite(torch.from_numpy(found["hessian"].scores(1.0))).all()


@pytest.mark.parametrize("columns", [1, 5])
def test_gradients_are_taken_along_directions_in_single_precision(problem, columns: int) -> None:
    """By a sweep for few of them, by gradients for many."""
    v = torch.randn(problem.num_parameters, columns, generator=torch.Generator().manual_seed(0))
    found = StreamedGradients(problem).along(v).double()
    torch.testing.assert_close(found, loss_gradients(problem).along(v.double()), atol=1e-5, rtol=0)
