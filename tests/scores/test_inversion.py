"""One inversion for the whole grid of a run: levels by NumPy alone, and what it does not reach."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr

from decomposition import DecompositionError, Settings, build_chain, run
from decomposition.chain import CHAIN
from decomposition.chain.paper_protocol import ladder_rungs
from decomposition.curvature import SolveCurvature
from decomposition.plan_command import plan_text
from decomposition.problem import Problem
from decomposition.scores.crossfit import mask_folds
from decomposition.scores.gradients import loss_gradients
from tests.tiny import tiny_problem

SETTINGS = Settings(
    masks=30,
    second_order_masks=0,
    resamples=100,
    damping_low=1e-3,
    damping_high=1e2,
    damping_points=3,
    rules="layer_mean,fixed:0.01",
    lattice=False,
    matrix_norms=False,
    detail=False,
)
THRESHOLD = 0.05


@cache
def problem() -> Problem:
    return tiny_problem()


@cache
def result(inversion: str) -> xr.DataTree:
    extra = {"hessian_truncated": ladder_rungs()["hessian_truncated"]}
    settings = replace(SETTINGS, inversion=inversion)
    return run(problem(), settings=settings, extra=extra, progress=False)


def notes(tree: xr.DataTree) -> str:
    return "\n".join(json.loads(tree.attrs["notes"]))


def _inverse(inversion: str, matrix: np.ndarray, damping: float) -> np.ndarray | None:
    """C⁻¹ at λ by NumPy alone; None where nothing is left."""
    mu, v = np.linalg.eigh(matrix)
    if inversion == "per_layer":
        units = np.empty(len(mu))
        for block in problem().blocks:
            units[block.slice] = np.diag(matrix)[block.slice].mean() / np.diag(matrix).mean()
        return np.linalg.inv(v @ np.diag(abs(mu)) @ v.T + damping * np.diag(units))
    if inversion == "pseudo_inverse":
        kept, denominators = abs(mu) > damping, abs(mu)
    elif inversion.startswith("truncated"):
        kept, denominators = mu + damping > THRESHOLD, mu + damping
    else:
        kept, denominators = mu == mu, abs(mu) + damping
    if not kept.any():
        return None
    return v @ np.diag(np.where(kept, 1 / denominators, 0.0)) @ v.T


@pytest.mark.parametrize("rung", CHAIN)
@pytest.mark.parametrize(
    "inversion", ["damped", "per_layer", "pseudo_inverse", f"truncated:{THRESHOLD:g}"]
)
def test_levels_at_every_damping_are_those_of_the_inverse_written_out(
    inversion: str, rung: str
) -> None:
    tree = result(inversion)
    gradients = loss_gradients(problem())
    train, query = gradients.train.numpy(), gradients.query.numpy()
    matrix = build_chain(problem())[rung].dense().numpy()
    at = tree["levels/at_damping"]
    masks, truth = _truth()
    folds = mask_folds(len(masks), seed=(SETTINGS.seed, 2))
    for place, damping in enumerate(at["damping_value"].values):
        found = float(at["estimate"].sel(rung=rung)[place])
        inverse = _inverse(inversion, matrix, float(damping))
        if inverse is None:
            assert np.isnan(found)
            continue
        tau = query.T @ inverse @ train / train.shape[1]
        wanted = np.mean(
            [
                spearmanr(-(masks @ tau.T)[folds == f, q], truth[folds == f, q]).statistic
                for f in (0, 1)
                for q in range(len(tau))
            ]
        )
        assert found == pytest.approx(wanted, abs=4e-3)


@cache
def _truth() -> tuple[np.ndarray, np.ndarray]:
    """Masks, and the measured loss of every query, from outputs."""
    settings = replace(SETTINGS, detail=True, attribution=True)
    bank = run(problem(), settings=settings, progress=False)["bank"]
    outputs = bank["outputs"].values[:, 0]
    labels = problem().query[1].numpy()[None, :, None]
    likely = np.take_along_axis(
        outputs - np.logaddexp.reduce(outputs, -1, keepdims=True), labels, -1
    )
    return bank["masks"].values.astype(float), -likely[..., 0]


def test_rungs_without_factors_stay_damped_and_are_named() -> None:
    factored, damped = (result(name)["levels/at_damping"] for name in ("factored", "damped"))
    exact = ["hessian", "ggn", "block_ggn"]
    for rungs, same in ((exact, True), (["ekfac"], False), (["kfac"], False)):
        pair = [tree["estimate"].sel(rung=rungs).values for tree in (factored, damped)]
        assert np.array_equal(*pair) == same
    assert "inversion factored does not reach hessian, ggn, where λ enters as without" in notes(
        result("factored")
    )


def test_an_inverse_of_its_own_is_kept() -> None:
    kept, damped = (result(name)["levels"]["estimate"] for name in ("per_layer", "damped"))
    np.testing.assert_array_equal(
        *(one.sel(rung="hessian_truncated", protocol="tuned") for one in (kept, damped))
    )
    assert "inversion per_layer does not reach hessian_truncated" in notes(result("per_layer"))


@pytest.mark.parametrize("rule", ["layer_mean", "fixed:0.01"])
def test_rules_are_inversions_of_their_own(rule: str) -> None:
    """Up to rounding: a wrapped rung is not scored together with the grid."""
    other, damped = (result(name)["levels"]["estimate"] for name in ("pseudo_inverse", "damped"))
    np.testing.assert_allclose(
        *(one.sel(protocol=rule, rung=list(CHAIN)) for one in (other, damped)), atol=1e-6
    )


def test_it_stands_in_the_result() -> None:
    assert result("per_layer")["cells"]["inversion"].item() == "per_layer"
    assert "inversion per_layer: every layer is damped in proportion" in notes(result("per_layer"))
    assert "inversion" not in notes(result("damped"))


def test_residuals_follow_it() -> None:
    """At a threshold below all eigenvalues the pseudo-inverse of H leaves the null space alone."""
    at = {name: result(name)["spectral_error"] for name in ("damped", "pseudo_inverse")}
    residual = {n: t["damped_value"].sel(metric="inverse_residual_query") for n, t in at.items()}
    first = {n: float(one.sel(rung="hessian").isel(damping=0)) for n, one in residual.items()}
    assert abs(first["damped"] - first["pseudo_inverse"]) > 1e-6
    undamped = at["pseudo_inverse"]["damped_value"].sel(metric="inverse_residual_query_damped")
    assert np.isnan(undamped).all()  # there is no H + λI


def test_nothing_left_is_a_missing_level_with_its_reason() -> None:
    settings = replace(SETTINGS, inversion="pseudo_inverse", damping_high=1e4, rules="")
    tree = run(problem(), settings=settings, progress=False)
    last = tree["levels/at_damping"]["estimate"].isel(multiplier=-1)
    assert np.isnan(last.sel(rung=list(CHAIN))).all()
    assert np.isfinite(tree["levels"]["estimate"].sel(rung="kfac", protocol="tuned"))
    said = "no scores of hessian, ggn, block_ggn, ekfac, kfac at 1 of 3 dampings"
    assert said in notes(tree)


@pytest.mark.parametrize("inversion", ["pseudo_inverse", "truncated:0.1"])
def test_a_policy_beside_one_that_says_itself_is_refused(inversion: str) -> None:
    with pytest.raises(DecompositionError, match="leave negative='clip' out"):
        Settings(inversion=inversion, negative="clip")


@pytest.mark.parametrize("inversion", ["per_layer", "pseudo_inverse", "truncated"])
def test_what_asks_for_the_matrix_of_h_is_refused_before_any_work(inversion: str) -> None:
    settings = replace(SETTINGS, inversion=inversion, memory=1e-6)
    said = f"inversion {inversion}.* asks for the matrix of hessian, which is matrix-free .*"
    said += "raise --memory, or take --inversion damped or factored"
    untrained = replace(problem(), initial=None, recipe=problem().recipe)
    with pytest.raises(DecompositionError, match=said):
        run(untrained, settings=settings, progress=False)
    with pytest.raises(DecompositionError, match=said):
        plan_text(problem(), settings)


def test_a_rung_of_ones_own_that_cannot_be_inverted_so_is_named() -> None:
    def mine(problem: Problem) -> SolveCurvature:
        return SolveCurvature(problem.num_parameters, lambda v, damping: v / (1.0 + damping))

    tree = run(
        problem(),
        settings=replace(SETTINGS, inversion="per_layer"),
        extra={"mine": mine},
        progress=False,
    )
    assert "does not reach mine, where λ enters as without it: its inverse is" in notes(tree)
    assert torch.tensor(tree["levels"]["estimate"].sel(rung="mine").values).shape
