"""Dampings that need no retraining: what each rule inverts, and what it costs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr

from decomposition import DecompositionError, Recipe, Settings, build_chain, run
from decomposition.chain import CHAIN
from decomposition.problem import Problem
from decomposition.scores.crossfit import mask_folds
from decomposition.scores.gradients import loss_gradients
from decomposition.scores.rules import damping_rules
from decomposition.shares.regret import regret_sentence
from tests.tiny import tiny_problem

SETTINGS = Settings(
    masks=40,
    second_order_masks=0,
    resamples=100,
    damping_points=3,
    rules="layer_mean,mean:0.3,fixed:0.01,factored,pseudo_inverse:0.001,truncated:0.01:0.001",
    also="cg:5",
)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem()


@pytest.fixture(scope="module")
def result(problem: Problem) -> xr.DataTree:
    return run(problem, settings=SETTINGS, progress=False)


def _inverse(rule: str, matrix: np.ndarray, problem: Problem) -> np.ndarray:
    """C⁻¹ under a rule, by NumPy alone."""
    mu, v = np.linalg.eigh(matrix)
    if rule == "layer_mean":
        means = np.empty(len(mu))
        for block in problem.blocks:
            means[block.slice] = 0.1 * np.diag(matrix)[block.slice].mean()
        return np.linalg.inv(v @ np.diag(abs(mu)) @ v.T + np.diag(means))
    if rule.startswith("pseudo_inverse"):
        inverse = np.where(abs(mu) > 0.001, 1 / abs(mu), 0.0)
    elif rule.startswith("truncated"):
        inverse = np.where(mu + 0.01 > 0.001, 1 / (mu + 0.01), 0.0)
    else:
        damping = 0.01 if rule.startswith("fixed") else 0.3 * abs(mu).mean()
        inverse = 1 / (abs(mu) + damping)
    return v @ np.diag(inverse) @ v.T


@pytest.mark.parametrize("rung", CHAIN)
@pytest.mark.parametrize("rule", [r for r in damping_rules(SETTINGS.rules) if r != "factored"])
def test_levels_are_those_of_the_inverse_written_out(
    rule: str, rung: str, problem: Problem, result: xr.DataTree
) -> None:
    gradients = loss_gradients(problem)
    train, query = gradients.train.numpy(), gradients.query.numpy()
    matrix = build_chain(problem)[rung].dense().numpy()
    tau = query.T @ _inverse(rule, matrix, problem) @ train / train.shape[1]
    bank = result["bank"]
    masks, outputs = bank["masks"].values.astype(float), bank["outputs"].values[:, 0]
    likely = np.take_along_axis(
        outputs - np.logaddexp.reduce(outputs, -1, keepdims=True),
        problem.query[1].numpy()[None, :, None],
        -1,
    )
    truth = -likely[..., 0]
    folds = mask_folds(len(masks), seed=(SETTINGS.seed, 2))
    wanted = np.mean(
        [
            spearmanr(-(masks @ tau.T)[folds == f, q], truth[folds == f, q]).statistic
            for f in (0, 1)
            for q in range(len(tau))
        ]
    )
    found = result["levels"]["estimate"].sel(protocol=rule, rung=rung)
    assert float(found) == pytest.approx(wanted, abs=2e-3)


def test_rungs_that_a_rule_does_not_serve_have_no_level_and_a_reason(result: xr.DataTree) -> None:
    levels, notes = result["levels"]["estimate"], "\n".join(json.loads(result.attrs["notes"]))
    assert np.isnan(levels.sel(protocol="factored", rung=["hessian", "ggn", "block_ggn"])).all()
    assert np.isfinite(levels.sel(protocol="factored", rung=["ekfac", "kfac"])).all()
    assert np.isnan(levels.sel(protocol="layer_mean", rung="cg:5"))
    assert "rule layer_mean: no level of cg:5: its inverse is what its solver makes of λ" in notes
    assert "rule factored: no level of hessian, ggn" in notes
    damping = result["levels"]["damping"]
    assert float(damping.sel(protocol="fixed:0.01", rung="kfac")) == 0.01
    assert np.isnan(damping.sel(protocol="layer_mean", rung="kfac"))


def test_regret_is_the_tuned_level_minus_the_rules(result: xr.DataTree) -> None:
    levels, regret = result["levels"]["estimate"], result["regret"]["regret"]
    assert regret["protocol"].values.tolist()[:3] == ["equal", "relative", "effective_dimension"]
    gap = levels.sel(protocol="tuned") - levels.sel(protocol="mean:0.3")
    found = regret.sel(protocol="mean:0.3", ci_bound="estimate")
    np.testing.assert_allclose(found, gap.sel(rung=found["rung"]), atol=1e-12)
    bounds = regret.sel(protocol="mean:0.3").dropna("rung")
    found = found.sel(rung=bounds["rung"])
    assert (bounds.sel(ci_bound="lower") <= found).all()
    assert (found <= bounds.sel(ci_bound="upper")).all()
    assert set(json.loads(result["regret"].attrs["sentences"])) == set(
        damping_rules(SETTINGS.rules)
    )


def test_on_a_quadratic_problem_regret_is_that_of_the_closed_form() -> None:
    """Least squares: H = AᵀA / N, retrained models by ``lstsq``, LDS by SciPy, nothing of ours."""
    generator = np.random.default_rng(0)
    x, xq = generator.normal(size=(24, 3)), generator.normal(size=(6, 3))
    y, yq = (a @ np.array([1.0, -2.0, 0.5]) + 0.5 * generator.normal(size=len(a)) for a in (x, xq))
    tensors = [torch.from_numpy(a).float() for a in (x, y[:, None], xq, yq[:, None])]
    recipe = Recipe(lr=0.3, momentum=0.9, batch_size=24, epochs=300, dtype="float64")
    problem = Problem(
        model=torch.nn.Linear(3, 1),
        loss=torch.nn.MSELoss(),
        train=(tensors[0], tensors[1]),
        query=(tensors[2], tensors[3]),
        recipe=recipe,
    )
    settings = replace(SETTINGS, rules="mean:0.3,mean:3", also="", lattice=False)
    result = run(problem, settings=settings, progress=False)
    a, aq = (np.hstack([z, np.ones((len(z), 1))]) for z in (x, xq))
    masks = result["bank"]["masks"].values.astype(bool)
    fits = np.stack([np.linalg.lstsq(a[m], y[m], rcond=None)[0] for m in masks])
    truth = (fits @ aq.T - yq) ** 2
    theta = np.linalg.lstsq(a, y, rcond=None)[0]
    g, gq = (2 * (z @ theta - t)[:, None] * z for z, t in ((a, y), (aq, yq)))
    hessian, folds = 2 * a.T @ a / len(a), mask_folds(len(masks), seed=(settings.seed, 2))

    def level(damping: float) -> float:
        tau = gq @ np.linalg.inv(hessian + damping * np.eye(4)) @ g.T / len(a)
        effect = -masks.astype(float) @ tau.T
        pairs = [(f, q) for f in (0, 1) for q in range(len(tau))]
        rho = [spearmanr(effect[folds == f, q], truth[folds == f, q]).statistic for f, q in pairs]
        return float(np.mean(rho))

    mean = np.trace(hessian) / 4
    regret = result["regret"]["regret"].sel(ci_bound="estimate")
    for rung in ("hessian", "kfac"):  # a linear model: all rungs are H
        found = float(regret.sel(protocol="mean:3", rung=rung))
        found -= float(regret.sel(protocol="mean:0.3", rung=rung))  # the tuned level drops out
        assert found == pytest.approx(level(0.3 * mean) - level(3 * mean), abs=5e-3)


def _planted(regret: dict[str, list[tuple[float, float, float]]]) -> xr.Dataset:
    """Regret of rule ``mean``: rung → interval of every cell."""
    values = np.array([regret[rung] for rung in regret]).transpose(1, 0, 2)
    return xr.Dataset(
        {
            "regret": (("protocol", "cell", "rung", "ci_bound"), values[None]),
            "mean": (("protocol", "rung", "ci_bound"), values.mean(0)[None]),
        },
        {"protocol": ["mean"], "rung": list(regret), "ci_bound": ["lower", "estimate", "upper"]},
    )


LITTLE, MUCH = (-0.001, 0.004, 0.01), (0.1, 0.15, 0.2)


def test_the_sentence_tells_what_scales_and_what_is_worst() -> None:
    found = _planted({"hessian": [MUCH] * 2, "ekfac": [LITTLE, MUCH], "kfac": [LITTLE] * 2})
    assert regret_sentence(found, "mean") == (
        "λ = 0.1 × the mean eigenvalue needs no retraining; LDS lost by it in the mean: 0.077 "
        "[0.050, 0.105] on EK-FAC (below 0.02 in 1 of 2 cells), 0.004 [−0.001, 0.010] on K-FAC "
        "(below 0.02 in 2 of 2 cells) and 0.150 [0.100, 0.200] on the Hessian, its worst (at most "
        "0.15)"
    )


def test_the_sentence_of_one_cell() -> None:
    missing = _planted({"hessian": [(np.nan,) * 3], "ekfac": [MUCH], "kfac": [LITTLE]})
    assert regret_sentence(missing, "mean") == (
        "λ = 0.1 × the mean eigenvalue needs no retraining; LDS lost by it: 0.150 [0.100, 0.200] "
        "on EK-FAC and 0.004 [−0.001, 0.010] on K-FAC"
    )


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        ("layers", "unknown damping rule 'layers': use layer_mean"),
        ("fixed:much", "fixed does not take 'much' in fixed:much; it takes damping, numbers"),
        ("mean:1:2", "mean does not take '1:2'"),
        ("fixed:0", r"the damping of rule fixed must lie in \(0"),
        ("mean,mean", "the rule mean is named twice"),
    ],
)
def test_specifications_that_are_none(specification: str, said: str) -> None:
    with pytest.raises(DecompositionError, match=said):
        Settings(rules=specification)
