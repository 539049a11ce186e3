"""A run without dense matrices, against the same run with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from decomposition import Problem, Recipe, Settings, build_chain, influence_scores, run
from decomposition.errors import DecompositionError
from decomposition.stages import large_run
from decomposition.targets.names import TargetError

NONE = 1e-6
"""GiB: nothing dense fits."""
SETTINGS = Settings(masks=40, second_order_masks=0, resamples=200, damping_points=3)


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


def test_lds_is_that_of_the_exact_scores(both) -> None:
    small = both[0]
    level = small["shares"]["level"].sel(protocol="equal", ci_bound="estimate")
    assert np.isfinite(level).all()
    np.testing.assert_array_equal(small["shares"]["protocol"], ["equal"])
    np.testing.assert_allclose(
        small["attribution"]["lds_mean"].isel(damping=0).sel(ci_bound="estimate"), level
    )


def test_scores_agree_with_those_of_the_dense_chain(both) -> None:
    small = both[0]
    trained = problem().trained()
    chain = build_chain(trained)
    damping = float(small["attribution"]["damping"][0])
    exact = influence_scores(trained, chain["hessian"], damping, "signed")
    for rung in ("ggn", "kfac"):
        other = influence_scores(trained, chain[rung], damping)
        ranks = [torch.argsort(torch.argsort(one, 1), 1).double() for one in (exact, other)]
        centred = [one - one.mean(1, keepdim=True) for one in ranks]
        rho = (centred[0] * centred[1]).sum(1) / (centred[0].norm(dim=1) * centred[1].norm(dim=1))
        found = small["attribution"]["agreement"].sel(agreement_metric="spearman", rung=rung)
        assert float(found[0]) == pytest.approx(float(rho.mean()), abs=1e-3)


def test_forms_and_solves_are_recorded(both) -> None:
    large = both[0]["large"].to_dataset()
    assert str(large["form"].sel(rung="hessian").values) == "matrix-free"
    assert int(large["systems"].sel(rung="hessian")) == 16  # 8 queries at two dampings
    assert 0 < float(large["residual"].sel(rung="hessian")) <= 1e-6
    assert float(large["trace_error"].sel(rung="kfac")) == 0.0
    notes = both[0].attrs["notes"]
    assert "estimated with random probes" in notes
    assert "policy signed" in notes


def test_the_report_says_how(both) -> None:
    page = (both[2] / "report.html").read_text("utf-8")
    assert 'id="large"' in page
    assert "How it was computed at this size" in page
    assert "estimated with random probes" in page


def test_models_that_are_not_retrained_have_no_lds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_run, "RETRAINED", 10)
    tree = run(problem(), settings=SETTINGS, progress=False, memory=NONE)
    assert "lds_mean" not in tree["attribution"]
    assert np.isfinite(tree["attribution"]["agreement"]).all()
    assert "--bank" in tree.attrs["notes"]


def test_targets_that_need_dense_rungs_are_refused() -> None:
    with pytest.raises(TargetError, match="needs dense rungs") as refused:
        run(problem(), settings=Settings(target="pbrf"), progress=False, memory=NONE)
    assert isinstance(refused.value, DecompositionError)
