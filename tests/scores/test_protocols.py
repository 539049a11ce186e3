"""What each damping protocol holds equal really is equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from decomposition import Problem, Settings, run
from decomposition.chain import CHAIN, build_lattice
from decomposition.curvature import EigenpairCurvature, ScaledIdentity, SolveCurvature
from decomposition.curvature.damped import DampedSpectrum, FactoredDamping
from decomposition.damping import NegativeCurvature, effective_dimension
from decomposition.errors import DampingError
from decomposition.scores.bootstrap import resample
from decomposition.scores.crossfit import mask_folds
from decomposition.scores.effects import Effects, Measured
from decomposition.scores.gradients import loss_gradients, random_scores
from decomposition.scores.protocols import Grid, grids, rank_bound
from decomposition.scores.scorer import FixedScorer, Scorer
from decomposition.scores.scorers import scorer
from decomposition.scores.selection import select
from tests.tiny import tiny_problem


@pytest.fixture(scope="module")
def scorers() -> dict[str, Scorer]:
    problem = tiny_problem()
    gradients = loss_gradients(problem)
    found = {name: scorer(rung, gradients) for name, rung in build_lattice(problem).items()}
    found["identity"] = scorer(ScaledIdentity(problem.num_parameters, 0.1), gradients)
    found["random"] = FixedScorer(random_scores(problem.num_queries, problem.num_examples, 0))
    return found


MULTIPLIERS = Settings(damping_points=5).multipliers()
RANK = rank_bound(tiny_problem())
"""min(P, N·C): the unit of the grid is a trace over this number."""


def test_equal_gives_every_rung_one_damping(scorers: dict[str, Scorer]) -> None:
    grid = grids(scorers, MULTIPLIERS, "hessian", RANK)["equal"]
    for dampings in grid.dampings.values():
        np.testing.assert_array_equal(dampings, grid.settings)


def test_relative_is_a_multiple_of_the_mean_absolute_eigenvalue(
    scorers: dict[str, Scorer],
) -> None:
    grid = grids(scorers, MULTIPLIERS, "hessian", RANK)["relative"]
    for rung in CHAIN:
        mu = scorers[rung].mu
        assert mu is not None
        np.testing.assert_allclose(grid.dampings[rung], MULTIPLIERS * float(mu.abs().sum()) / RANK)


def test_effective_dimension_is_that_of_the_reference(scorers: dict[str, Scorer]) -> None:
    grid = grids(scorers, MULTIPLIERS, "hessian", RANK)["effective_dimension"]
    for rung in CHAIN:
        mu = scorers[rung].mu
        assert mu is not None
        for dimension, damping in zip(grid.settings, grid.dampings[rung], strict=True):
            if damping > 1e-9 * float(mu.abs().max()):  # else the rung has too low a rank
                found = effective_dimension(mu, float(damping))
                assert found == pytest.approx(float(dimension), rel=1e-6)


def test_tuned_is_never_clearly_worse_than_equal(tiny: xr.DataTree) -> None:
    """Cross-fitted optima may lose to a common damping by noise, not by more."""
    level = tiny["/shares"]["level"]
    for rung in CHAIN:
        tuned, equal = (level.sel(protocol=p, rung=rung) for p in ("tuned", "equal"))
        width = float(equal.sel(ci_bound="upper") - equal.sel(ci_bound="lower"))
        assert float(tuned.sel(ci_bound="estimate") - equal.sel(ci_bound="estimate")) > -width


def test_policies_agree_where_nothing_is_negative(scorers: dict[str, Scorer]) -> None:
    reference = scorers["ggn"].scores(0.1, "absolute")
    for policy in ("signed", "clip", "shift"):
        scores = scorers["ggn"].scores(0.1, policy)
        np.testing.assert_allclose(scores, reference, rtol=1e-4, atol=1e-5 * abs(reference).max())


def test_only_rungs_with_negative_eigenvalues_are_listed_under_policies(
    tiny: xr.DataTree,
) -> None:
    rungs = tiny["/policies"]["rung"].values.tolist()
    assert "hessian" in rungs
    assert not {"ggn", "block_ggn", "ekfac", "kfac", "identity", "random"} & set(rungs)


def test_signed_below_the_most_negative_eigenvalue_is_called_indefinite(
    tiny: xr.DataTree,
) -> None:
    table = tiny["/policies"].to_dataset().sel(policy="signed")
    lowest = tiny["/spectrum"]["eigenvalues"].sel(rung="hessian").values[0]
    damping = float(table["level_damping"].sel(rung="hessian"))
    flagged = bool(table["indefinite"].sel(rung="hessian"))
    if damping > 10 * abs(lowest):
        assert not flagged
    if damping < abs(lowest) / 10:
        assert flagged
    others = tiny["/policies"].to_dataset().sel(policy=["absolute", "clip", "shift"])
    assert not others["indefinite"].any()


def test_a_factored_damping_too_small_to_invert_gives_way(scorers: dict[str, Scorer]) -> None:
    """√λ grows so fast that a large dimension asks for a λ below working precision."""
    problem = tiny_problem()
    gradients = loss_gradients(problem)
    mu = torch.logspace(0, -18, problem.num_parameters, dtype=torch.float64)
    rung = scorer(EigenpairCurvature(mu, torch.eye(len(mu), dtype=torch.float64)), gradients)
    factored = FactoredDamping(torch.full_like(mu, 1e-6), torch.full_like(mu, -1.0))
    rung.spectrum = DampedSpectrum(mu, factored)
    multipliers = np.geomspace(1e-14, 1.0, 5)
    grid = grids({**scorers, "factored": rung}, multipliers, "hessian", RANK)["effective_dimension"]
    for damping in grid.dampings["factored"]:
        rung.check(float(damping), "absolute")


def solver(lowest: float, highest: float) -> Callable[[Problem], SolveCurvature]:
    """A rung of the user's own that has solutions between these dampings alone."""

    def solve(v: torch.Tensor, damping: float) -> torch.Tensor:
        if not lowest <= damping < highest:
            raise DampingError("out of my reach")
        return v / (1.0 + damping)

    return lambda problem: SolveCurvature(problem.num_parameters, solve)


@pytest.mark.parametrize("memory", [None, 1e-6])
def test_the_chains_own_settings_do_not_depend_on_other_rungs(memory: float | None) -> None:
    """One solver has only the smaller dampings, the other only the larger ones."""
    extra = {"below": solver(0.0, 0.05), "above": solver(0.05, np.inf)}
    settings = Settings(
        masks=12,
        second_order_masks=0,
        resamples=100,
        damping_points=4,
        matrix_norms=False,
        lattice=False,
        krylov_steps=400,
    )
    asked = {"settings": settings, "memory": memory, "progress": False}
    found, alone = run(tiny_problem(), extra=extra, **asked), run(tiny_problem(), **asked)
    level = found["/shares"]["level"].sel(ci_bound="estimate")
    expected = alone["/shares"]["level"].sel(ci_bound="estimate")
    chain = level.sel(rung=expected["rung"].values)
    np.testing.assert_allclose(chain, expected, atol=1e-12)
    assert level.sel(rung="above", protocol="tuned").notnull()
    reached = level.sel(rung=["below", "above"], protocol="equal").notnull()
    assert int(reached.sum()) <= 1
    for rung in ("below", "above"):
        said = f"protocol equal: {rung} has no level" in found.attrs["notes"]
        assert said != bool(reached.sel(rung=rung))


class Reaching(Scorer):
    """Scores that are there between two dampings alone."""

    refinable = False

    def __init__(self, reach: tuple[float, float], scores: np.ndarray) -> None:
        self.reach, self.found = reach, scores

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        low, high = self.reach
        return self.found if low <= damping <= high else np.full_like(self.found, np.nan)


def test_a_chain_that_is_solved_at_no_common_damping_has_the_tuned_protocol_alone() -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((16, 8)) < 0.5
    scores = generator.normal(size=(3, 8)).astype(np.float32)
    truth = -(masks @ scores.T)[:, None] + 0.1 * generator.normal(size=(16, 1, 3))
    chain = {"hessian": Reaching((1.0, 9.0), scores), "ggn": Reaching((0.0, 0.5), scores)}
    effects = Effects(chain, Measured(masks, truth, None))
    equal = np.array([0.1, 0.3, 2.0, 5.0])
    grid = Grid("equal", equal, dict.fromkeys(chain, equal))
    found, _ = select(
        effects, {"equal": grid}, mask_folds(16), resample(16, 3, count=100), Settings(), "hessian"
    )
    assert list(found.chosen) == ["tuned"]
    assert found.dampings["tuned"]["hessian"] >= 1.0 > found.dampings["tuned"]["ggn"]
