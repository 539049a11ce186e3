"""A run without dense matrices, against the same run with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from decomposition import Problem, Recipe, Settings, build_chain, influence_scores, run
from decomposition.curvature.assembly import assemble_ggn
from decomposition.curvature.matrix_free import CHANGE, KRYLOV_STEPS
from decomposition.report.page import report_html

NONE = 1e-6
"""GiB: nothing dense fits."""
SETTINGS = Settings(
    masks=40,
    second_order_masks=10,
    resamples=200,
    damping_low=1e-2,
    damping_high=1e2,
    damping_points=5,
)


def problem() -> Problem:
    """A small convolutional network with a block that has no Kronecker form."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.LayerNorm(12)
    )
    model.append(nn.Linear(12, 3))
    x = torch.randn(48, 1, 4, 4)
    y = (x.sum((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0).long()
    recipe = Recipe(optimizer="sgd", lr=0.1, epochs=15, batch_size=10)
    data = ((x[:40], y[:40]), (x[40:], y[40:]))
    return Problem(model, nn.CrossEntropyLoss(), *data, recipe=recipe, name="tiny")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.DataTree, xr.DataTree, Path]:
    """The result without dense matrices, that with them, and the first one's folder."""
    folder = tmp_path_factory.mktemp("large")
    small = run(problem(), folder, settings=SETTINGS, progress=False, memory=NONE)
    return small, run(problem(), settings=SETTINGS, progress=False), folder


def test_steps_of_the_frobenius_error_lie_in_their_intervals(both) -> None:
    estimated, exact = (
        tree["shares"]["drop"].sel(metric="frobenius_squared", protocol="equal")
        for tree in both[:2]
    )
    truth = exact.sel(ci_bound="estimate")
    width = estimated.sel(ci_bound="upper") - estimated.sel(ci_bound="lower")
    gap = abs(estimated.sel(ci_bound="estimate") - truth)
    assert (gap <= width + 1e-12 * truth.max()).all()
    assert float(width.sel(step="eigenvalues")) == 0.0


def test_scores_agree_with_those_of_the_dense_chain(both) -> None:
    """H by its policy (absolute) from Krylov spaces, the others directly."""
    attribution = both[0]["attribution"]
    trained = problem().trained()
    chain = build_chain(trained)
    known = attribution["agreement"].sel(agreement_metric="spearman").dropna("damping", how="all")
    damping = float(known["damping"][0])
    exact = influence_scores(trained, chain["hessian"], damping)
    for rung in ("ggn", "kfac"):
        other = influence_scores(trained, chain[rung], damping)
        ranks = [torch.argsort(torch.argsort(one, 1), 1).double() for one in (exact, other)]
        centred = [one - one.mean(1, keepdim=True) for one in ranks]
        rho = (centred[0] * centred[1]).sum(1) / (centred[0].norm(dim=1) * centred[1].norm(dim=1))
        assert float(known.sel(rung=rung)[0]) == pytest.approx(float(rho.mean()), abs=2e-3)


def test_lds_curves_are_those_of_the_dense_run(both) -> None:
    """P < N·C here, so that both have the same grid; the same models were retrained."""
    small, dense = (tree["attribution"]["lds_mean"] for tree in both[:2])
    np.testing.assert_allclose(small["damping"], dense["damping"], rtol=1e-9)
    for rung in ("ggn", "block_ggn", "ekfac", "kfac", "identity"):
        gap = abs(small.sel(rung=rung).values - dense.sel(rung=rung).values)
        assert np.nanmax(gap) < 2e-3
    hessian = abs(small.sel(rung="hessian").values - dense.sel(rung="hessian").values)
    assert np.isfinite(hessian).any()
    assert np.nanmax(hessian) < 0.02


@pytest.mark.parametrize("protocol", ["equal", "tuned"])
def test_levels_are_read_on_the_curves(both, protocol: str) -> None:
    """Cross-fitted levels lie near the curve at their damping, and the ceiling is the same."""
    small = both[0]
    at = small["shares"]["level_damping"].sel(protocol=protocol)
    level = small["shares"]["level"].sel(protocol=protocol, ci_bound="estimate")
    curve = small["attribution"]["lds_mean"].sel(ci_bound="estimate")
    for rung in ("hessian", "ggn", "kfac"):
        near = curve.sel(rung=rung).sel(damping=float(at.sel(rung=rung)), method="nearest")
        assert float(level.sel(rung=rung)) == pytest.approx(float(near), abs=0.1)
    if protocol == "equal":
        assert len(set(at.sel(rung=["hessian", "ggn", "kfac"]).values)) == 1


def test_ceiling_is_that_of_the_dense_run(both) -> None:
    ours, exact = (tree["attribution"]["ceiling"].values for tree in both[:2])
    np.testing.assert_allclose(ours, exact, atol=1e-6)


def _dampings(tree: xr.DataTree, path: str) -> np.ndarray:
    """λ of H; under equal effective dimension it is that of ``equal``."""
    data = tree[path].to_dataset()
    own = "damping_value" in data
    return (data["damping_value"].sel(rung="hessian") if own else data["damping"]).values


def test_forms_and_solves_are_recorded(both) -> None:
    large = both[0]["forms"].to_dataset()
    assert str(large["form"].sel(rung="hessian").values) == "matrix-free"
    systems, products = (int(large[name].sel(rung="hessian")) for name in ("systems", "products"))
    dampings = {
        float(damping)
        for path in ("attribution", "attribution/relative")
        for damping in _dampings(both[0], path)
    }
    assert systems == 8 * len(dampings)  # a rule of one λ is solved together with them
    assert products <= 8 * KRYLOV_STEPS  # shared by all dampings
    assert 0 <= float(large["residual"].max()) <= CHANGE  # 0 where a space is exhausted
    assert float(large["trace_error"].sel(rung="kfac")) == 0.0
    notes = both[0].attrs["notes"]
    assert "estimated with random probes" in notes
    assert "Krylov" in notes


def test_the_gauss_newton_rungs_have_the_trace_of_ekfac(both) -> None:
    """tr G = tr B = tr E: known without a probe, however G is held."""
    trained = problem().trained()
    large = both[0]["forms"].to_dataset()
    assert str(large["form"].sel(rung="ggn").values) == "matrix-free"
    for rung in ("ggn", "block_ggn"):
        assert float(large["trace"].sel(rung=rung)) == pytest.approx(
            float(assemble_ggn(trained).trace()), rel=1e-9
        )
        assert float(large["trace_error"].sel(rung=rung)) == 0.0
    assert float(large["trace_error"].sel(rung="hessian")) > 0.0


def test_a_rung_that_cannot_be_solved_has_no_scores_there() -> None:
    """H in spaces of eight steps: at the smallest dampings it has neither scores nor an LDS."""
    settings = replace(SETTINGS, krylov_steps=8)
    small = run(problem(), settings=settings, progress=False, memory=NONE)
    mean = small["attribution"]["lds_mean"].sel(ci_bound="estimate")
    hessian, kfac = np.isfinite(mean.sel(rung="hessian")), np.isfinite(mean.sel(rung="kfac"))
    assert not bool(hessian[0])
    assert bool(hessian[-1])
    assert kfac.all()
    level, damping = (small["shares"][v].sel(rung="hessian") for v in ("level", "level_damping"))
    damping = damping[np.isfinite(level.sel(ci_bound="estimate")).values]
    assert (damping >= mean["damping"].values[int(hessian.values.argmax())] * (1 - 1e-9)).all()
    assert "no scores of hessian" in small.attrs["notes"]
    page = " ".join(report_html(small).split())
    first = mean["damping"].values[int(hessian.values.argmax())]
    best = small["attribution"]["best_damping"].sel(rung="hessian")
    held = float(best) == pytest.approx(first)
    assert ("held back by its solver" in page) == held


def test_the_report_says_how(both) -> None:
    page = (both[2] / "report.html").read_text("utf-8")
    assert "How each rung was held" in page
    assert "estimated with random probes" in page


def test_spectra_come_with_their_errors(both) -> None:
    small, page = both[0], (both[2] / "report.html").read_text("utf-8")
    error = small["spectral_error"].to_dataset().sel(metric="relative_frobenius")
    assert (error["standard_error"].sel(rung=["ggn", "kfac"]) > 0).all()
    assert int(small["spectral_density"]["products"].sel(rung="hessian")) > 0
    assert "Number of eigenvalues beyond" in page
