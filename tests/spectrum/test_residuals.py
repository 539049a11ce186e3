"""Residuals of the inverse (Eq. 9), against their definition in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from decomposition.chain import build_chain
from decomposition.curvature import BlockDiagonal, Curvature, DenseCurvature, SolveCurvature
from decomposition.curvature.inversion import UnderPolicy
from decomposition.errors import DampingError
from decomposition.scores.gradients import loss_gradients
from decomposition.spectrum import residuals
from decomposition.spectrum.residuals import (
    RESIDUALS,
    Directions,
    Treated,
    drawn,
    inverse_residuals,
    residual_rows,
)
from tests import cases

SIZE, DAMPINGS = 6, [0.1, 2.0]


def _matrix(seed: int, shift: float = 0.0) -> torch.Tensor:
    rows = torch.from_numpy(np.random.default_rng(seed).standard_normal((SIZE, SIZE)))
    return rows @ rows.T + shift * torch.eye(SIZE)


def _rungs() -> dict[str, Curvature]:
    hessian = _matrix(0) - 2.0 * torch.eye(SIZE)  # indefinite
    blocks = {"a": hessian[:2, :2].contiguous(), "b": hessian[2:, 2:].contiguous()}
    return {"hessian": DenseCurvature(hessian), "blocks": BlockDiagonal(blocks)}


def _directions(kind: str = "train", count: int = 7) -> Directions:
    columns = np.random.default_rng(3).standard_normal((SIZE, count))
    return Directions(kind, torch.from_numpy(columns), True)


@pytest.mark.parametrize("rung", ["hessian", "blocks"])
@pytest.mark.parametrize("damped", [False, True])
def test_mean_and_median_over_the_gradients(rung: str, damped: bool) -> None:
    rungs, v = _rungs(), _directions("query")
    found = residual_rows(inverse_residuals(rungs, [v], DAMPINGS, {}, "absolute"), 1)
    mu, basis = np.linalg.eigh(rungs[rung].dense().numpy())
    exact, columns = rungs["hessian"].dense().numpy(), v.columns.numpy()
    for damping in DAMPINGS:
        inverse = basis @ np.diag(1 / (abs(mu) + damping)) @ basis.T
        sides = (exact + damped * damping * np.eye(SIZE)) @ inverse @ columns
        wanted = ((sides - columns) ** 2).sum(0) / (columns**2).sum(0)
        place = {
            "metric": f"inverse_residual_query{'_damped' if damped else ''}",
            "damping": damping,
            "rung": rung,
        }
        np.testing.assert_allclose(found["damped_value"].sel(place), wanted.mean())
        np.testing.assert_allclose(found["damped_median"].sel(place), np.median(wanted))
    last = {dim: label for dim, label in place.items() if dim != "damping"}
    assert found["value"].sel(last) == found["damped_value"].sel(place)
    assert found["standard_error"].sel(last) == 0.0
    assert np.isnan(found["damped_value"].sel(metric="inverse_residual_train")).all()


def test_a_rung_that_is_the_hessian_has_none_without_damping() -> None:
    rungs: dict[str, Curvature] = {"hessian": DenseCurvature(_matrix(1, 0.1))}
    each = inverse_residuals(rungs, [_directions()], [0.0], {}, "signed")
    found = residual_rows(each, 0)["damped_value"]
    train = found.sel(metric=["inverse_residual_train", "inverse_residual_train_damped"])
    np.testing.assert_allclose(train, 0.0, atol=1e-16)


def test_exact_rungs_have_none_on_a_linear_model() -> None:
    """H = G = B = E = K of a linear regression."""
    problem = cases.linear_regression()
    chain = build_chain(problem)
    assert float(chain["hessian"].eigenvalues()[0]) > 0.0
    v = Directions("query", loss_gradients(problem).query, True)
    found = residual_rows(inverse_residuals(chain, [v], [0.0], {}, "signed"), 0)["damped_value"]
    query = found.sel(metric=["inverse_residual_query", "inverse_residual_query_damped"])
    np.testing.assert_allclose(query, 0.0, atol=1e-20)


def test_every_treatment_is_tried_with_its_own_inverse() -> None:
    rungs, v = _rungs(), _directions()
    half = SolveCurvature(SIZE, lambda columns, damping: columns / damping)
    own = {"hessian": rungs["hessian"], "blocks": half}
    treatments = {
        "equal": Treated(rungs, {"hessian": 0.1, "blocks": 2.0}, {"hessian": 0.1, "blocks": 2.0}),
        "rule": Treated({"blocks": half}, {"blocks": 4.0}, {}),
    }
    found = residual_rows(inverse_residuals(rungs, [v], DAMPINGS, treatments, "absolute"), 0)
    grid, under = found["damped_value"], found["residual"]
    metric = "inverse_residual_train"
    for rung, damping in (("hessian", 0.1), ("blocks", 2.0)):
        at = {"metric": metric, "rung": rung}
        assert under.sel(at).sel(protocol="equal") == grid.sel(at).sel(damping=damping)
        median = found["residual_median"].sel(at).sel(protocol="equal")
        assert median == found["damped_median"].sel(at).sel(damping=damping)
    columns = v.columns.numpy()
    sides = own["hessian"].dense().numpy() @ columns / 4.0
    wanted = (((sides - columns) ** 2).sum(0) / (columns**2).sum(0)).mean()
    rule = under.sel(protocol="rule")
    np.testing.assert_allclose(rule.sel(metric=metric, rung="blocks"), wanted)
    assert np.isnan(rule.sel(metric=metric, rung="hessian"))
    assert np.isnan(rule.sel(metric=f"{metric}_damped", rung="blocks"))  # there is no one λ


def test_inverses_in_the_basis_of_h_are_those_of_its_matrix() -> None:
    """H under another inversion has H's eigenvectors: its residuals are those of the solutions."""
    rungs, v = _rungs(), _directions()
    hessian = rungs["hessian"]
    clipped = UnderPolicy(hessian, "clip")
    treatments = {"rule": Treated({"hessian": clipped}, {"hessian": 0.3}, {"hessian": 0.3})}
    found = residual_rows(inverse_residuals(rungs, [v], DAMPINGS, treatments, "absolute"), 0)
    sides = hessian @ clipped.solve(v.columns, 0.3) - v.columns
    wanted = float((sides.square().sum(0) / v.columns.square().sum(0)).mean())
    at = {"protocol": "rule", "rung": "hessian", "metric": "inverse_residual_train"}
    np.testing.assert_allclose(found["residual"].sel(at), wanted)


def test_few_solutions_at_a_time_have_the_same_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    rungs, v = _rungs(), _directions()
    together = inverse_residuals(rungs, [v], DAMPINGS, {}, "absolute")
    monkeypatch.setattr(residuals, "NUMBERS", 1)
    xr.testing.assert_allclose(inverse_residuals(rungs, [v], DAMPINGS, {}, "absolute"), together)


def test_a_damping_that_is_none_is_refused() -> None:
    with pytest.raises(DampingError, match="damping"):
        inverse_residuals(_rungs(), [_directions()], [-1.0], {}, "absolute")


def test_a_sample_of_the_gradients_has_an_error() -> None:
    columns = torch.from_numpy(np.random.default_rng(5).standard_normal((SIZE, 400)))
    columns[:, 7] = 0.0  # of a query that is certain
    rungs, every = _rungs(), drawn("train", columns, 400, 0)
    assert every.all_of_them
    assert every.columns.shape == (SIZE, 399)
    some = drawn("train", columns, 40, 0)
    truth, found = (
        residual_rows(inverse_residuals(rungs, [one], DAMPINGS, {}, "absolute"), 0).sel(
            metric="inverse_residual_train", rung="blocks"
        )
        for one in (every, some)
    )
    assert found["standard_error"] > 0
    assert abs(found["value"] - truth["value"]) <= 4 * found["standard_error"]


def test_a_result_has_them_with_all_other_errors(tiny: xr.DataTree) -> None:
    errors = tiny["spectral_error"].to_dataset()
    assert set(RESIDUALS) <= set(errors["metric"].values)
    hessian = errors["value"].sel(metric="inverse_residual_query_damped", rung="hessian")
    kfac = errors["value"].sel(metric="inverse_residual_query_damped", rung="kfac")
    assert 0 <= float(hessian) < float(kfac)
    under = errors["residual"].sel(metric="inverse_residual_train", rung="kfac")
    assert np.isfinite(under).all()
    assert set(RESIDUALS) <= set(tiny["prediction"]["metric"].values)
