"""What large runs are held against: every target as in a dense run, or a note on what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from decomposition import Problem, Settings, build_chain, run
from decomposition.chain.plan import plan_chain
from decomposition.errors import DecompositionError, ProblemError
from decomposition.scores.gradients import score_grid, target_gradients
from decomposition.targets.functions import measure
from decomposition.targets.measurement import measure_proximal_responses
from decomposition.targets.truth import measured_truth
from tests import cases
from tests.elsewhere import elsewhere
from tests.test_matrix_free_run import NONE, SETTINGS, problem

FEW = replace(SETTINGS, masks=20, second_order_masks=6, leave_one_out_examples=12, damping_points=3)
TARGETS = {
    "margin": replace(FEW, target="margin"),
    "leave_one_out": replace(FEW, target="leave_one_out"),
    "pbrf": replace(FEW, target="pbrf", pbrf_damping=10.0),
}


@pytest.fixture(scope="module")
def trained() -> Problem:
    return problem().trained()


@pytest.fixture(scope="module", params=list(TARGETS))
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """A run without dense matrices under one target."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = TARGETS[request.param]
    found = run(problem(), folder, settings=settings, progress=False, memory=NONE)
    found.attrs["page"] = (folder / "report.html").read_text("utf-8")
    return found


def test_levels_are_rank_correlations_with_the_target(tree: xr.DataTree, trained: Problem) -> None:
    """By scipy, of the dense chain's scores of EK-FAC at the largest damping."""
    attribution, bank = tree["attribution"], tree["bank"]
    target = attribution.attrs["target"]
    function = "margin" if target == "margin" else "loss"
    ekfac = build_chain(trained)["ekfac"]
    damping = float(attribution["damping"][-1])
    tau = next(score_grid(ekfac, target_gradients(trained, function), [damping])).numpy()
    truth = measure(trained, bank["outputs"].values, function)[:, 0]
    removed = 1.0 - bank["masks"].values
    levels = attribution["lds"].sel(rung="ekfac").isel(damping=-1)
    predicted = removed @ tau.T
    for q in range(len(tau)):
        rho = stats.spearmanr(predicted[:, q], truth[:, q]).statistic
        assert float(levels[q]) == pytest.approx(float(rho), abs=1e-6)


def test_the_result_and_its_page_say_which_target(tree: xr.DataTree) -> None:
    target, page = tree["attribution"].attrs["target"], tree.attrs["page"]
    assert f"The target is {target}" in page
    assert tree["attribution"].attrs["measure"] in page
    if target == "pbrf":
        assert tree["attribution"].attrs["ceiling_source"] == "deterministic"
        assert "proximal Bregman response" in tree.attrs["notes"]
        assert "12 training examples removed one at a time" in page


def test_proximal_responses_are_those_of_a_dense_run(trained: Problem) -> None:
    settings = TARGETS["pbrf"]
    plan = plan_chain(trained, int(NONE * 2**30))
    small = measured_truth(trained, build_chain(trained, plan=plan), settings, progress=False).found
    dense = measure_proximal_responses(
        trained, build_chain(trained)["ggn"], 10.0, settings.plan, 12, progress=False
    )
    assert small is not None
    assert small.attributes["pbrf_damping"] == dense.attributes["pbrf_damping"]
    np.testing.assert_array_equal(small.weights, dense.weights)
    scale = np.abs(dense.truth).max()
    np.testing.assert_allclose(small.truth, dense.truth, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("target", "fewer"),
    [
        ("loss", "--masks"),
        *[(target, "--leave-one-out-examples") for target in ("leave_one_out", "pbrf")],
    ],
)
def test_what_cannot_be_afforded_is_said_with_the_ways_out(
    trained: Problem, target: str, fewer: str
) -> None:
    settings = replace(FEW, target=target, retrain_hours=0.0)  # pyright: ignore
    rungs = build_chain(trained, plan=plan_chain(trained, int(NONE * 2**30)))
    truth = measured_truth(trained, rungs, settings, progress=False, affordable=False)
    assert truth.found is None
    (note,) = truth.notes
    for part in ("no LDS", f"target {target}", "--retrain-hours is 0", fewer):
        assert part in note
    assert ("--bank" in note) == (target != "pbrf")


def test_a_run_without_a_truth_still_has_agreement() -> None:
    settings = replace(FEW, retrain_hours=0.0)
    tree = run(problem(), settings=settings, progress=False, memory=NONE)
    assert "lds_mean" not in tree["attribution"]
    assert np.isfinite(tree["attribution"]["agreement"]).any()
    assert "--retrain-hours" in tree.attrs["notes"]


def test_what_is_on_disk_already_is_free(trained: Problem, tmp_path: Path) -> None:
    rungs = build_chain(trained, plan=plan_chain(trained, int(NONE * 2**30)))
    for target in ("loss", "leave_one_out", "pbrf"):
        settings = replace(TARGETS["pbrf"], target=target)  # pyright: ignore
        first = measured_truth(
            trained, rungs, settings, tmp_path, progress=False, affordable=False
        ).found
        again = measured_truth(
            trained,
            rungs,
            replace(settings, retrain_hours=0.0),
            tmp_path,
            progress=False,
            affordable=False,
        ).found
        assert first is not None
        assert again is not None
        np.testing.assert_array_equal(again.truth, first.truth)


def test_without_attribution_there_is_nothing_to_say(trained: Problem) -> None:
    truth = measured_truth(trained, {}, replace(FEW, attribution=False), progress=False)
    assert truth.found is None
    assert truth.notes == ()


def test_targets_that_the_problem_has_not_are_refused() -> None:
    with pytest.raises(ProblemError, match="needs classes"):
        run(cases.tanh_regression(), settings=TARGETS["margin"], progress=False, memory=NONE)


@pytest.mark.parametrize("hours", [-1.0, float("inf"), float("nan")])
def test_a_limit_out_of_range_is_named(hours: float) -> None:
    with pytest.raises(DecompositionError, match=r"retrain_hours must lie in \[0, inf\)"):
        Settings(retrain_hours=hours)


@pytest.mark.parametrize("target", ["margin", "pbrf"])
def test_it_is_measured_where_the_problem_lies(trained: Problem, target: str) -> None:
    settings = TARGETS[target]

    def measured(one: Problem) -> np.ndarray:
        rungs = build_chain(one, plan=plan_chain(one, int(NONE * 2**30)))
        found = measured_truth(one, rungs, settings, progress=False).found
        assert found is not None
        return found.truth

    here = measured(trained)
    with elsewhere() as device:
        there = measured(trained.to(device))
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-4 * np.abs(here).max())
