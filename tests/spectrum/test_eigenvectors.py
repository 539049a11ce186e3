"""Overlaps, bands and the Kronecker mismatch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import build_lattice
from decomposition.curvature import DenseCurvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.scores.gradients import influence_scores, loss_gradients
from decomposition.spectrum.bands import decade_bands, gradient_energy, score_error
from decomposition.spectrum.mismatch import kronecker_values, mismatch_by_decade, mismatch_parts
from decomposition.spectrum.subspaces import cosine_matrix, descending, subspace_overlap
from tests.cases import deep_linear, tanh

LAMBDA = 1e-2


def symmetric(size: int, seed: int) -> DenseCurvature:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return DenseCurvature(matrix + matrix.T)


def test_the_overlap_curve_is_that_of_the_written_out_subspaces() -> None:
    c, r = symmetric(9, 0), symmetric(9, 1)
    v = c.decomposition()[1][:, descending(c.basis_values())]
    u = r.decomposition()[1][:, descending(r.basis_values())]
    expected = [float((v[:, :k].T @ u[:, :k]).square().sum()) / k for k in range(1, 10)]
    np.testing.assert_allclose(subspace_overlap(c, r), expected, atol=1e-12)


def test_a_rung_shares_all_subspaces_with_itself() -> None:
    c = symmetric(7, 0)
    np.testing.assert_allclose(subspace_overlap(c, c), 1.0, atol=1e-12)


def test_squared_cosines_of_a_whole_basis_are_doubly_stochastic() -> None:
    w = cosine_matrix(symmetric(6, 0), symmetric(6, 1), 6)
    np.testing.assert_allclose(w.sum("vector"), 1.0)
    np.testing.assert_allclose(w.sum("reference_vector"), 1.0)


def test_curvatures_of_different_sizes_are_refused() -> None:
    with pytest.raises(DecompositionError, match="sizes 3 and 4"):
        subspace_overlap(symmetric(3, 0), symmetric(4, 0))


def test_bands_keep_the_signs_apart_and_count_everything() -> None:
    bands = decade_bands(torch.tensor([-2.0, -0.02, 0.0, 1e-12, 0.03, 0.05, 3.0]))
    assert bands.labels == ("-1e+00", "-1e-02", "null", "+1e-02", "+1e+00")
    assert list(bands.coordinates()["count"][1]) == [1, 1, 2, 2, 1]


def test_gradient_energy_adds_up_to_one(problem: Problem) -> None:
    reference = build_lattice(problem)["hessian"]
    assert isinstance(reference, DenseCurvature)
    data = gradient_energy(reference, loss_gradients(problem))
    np.testing.assert_allclose(data["share"].sum("band"), 1.0)
    assert float(data["curvature"].sum()) == pytest.approx(1.0)


def test_the_score_error_is_that_of_the_scores(problem: Problem) -> None:
    rungs = build_lattice(problem)
    reference = rungs["hessian"]
    assert isinstance(reference, DenseCurvature)
    data = score_error(rungs, reference, loss_gradients(problem), LAMBDA)
    exact = influence_scores(problem, reference, LAMBDA)
    for name, curvature in rungs.items():
        gap = influence_scores(problem, curvature, LAMBDA) - exact
        expected = float(torch.linalg.norm(gap) / torch.linalg.norm(exact))
        assert float(data["relative"].sel(rung=name)) == pytest.approx(expected, abs=1e-9)


def test_score_errors_by_band_add_up(problem: Problem) -> None:
    rungs = build_lattice(problem)
    reference = rungs["hessian"]
    assert isinstance(reference, DenseCurvature)
    share = score_error(rungs, reference, loss_gradients(problem), LAMBDA)["share"]
    total = share.sum("band", skipna=False)
    differ = total.notnull()
    np.testing.assert_allclose(total.where(differ, drop=True), 1.0, atol=1e-6)


def test_the_mismatch_is_the_squared_distance_of_ekfac_and_kfac(problem: Problem) -> None:
    rungs = build_lattice(problem)
    data = mismatch_parts(kronecker_values(rungs)).sel(scope="whole", match="trace")
    norm = rungs["ekfac"].frobenius_norm() ** 2
    distance = float((rungs["ekfac"].dense() - rungs["kfac"].dense()).square().sum())
    assert float(data["error"]) * norm == pytest.approx(distance, rel=1e-9, abs=1e-12 * norm)


def test_scale_and_shape_make_up_the_mismatch(problem: Problem) -> None:
    data = mismatch_parts(kronecker_values(build_lattice(problem)))
    left = data["scale"] + data["shape"] - data["error"]
    np.testing.assert_allclose(left, 0.0, atol=1e-12)
    assert bool((data["scale"].sel(match="least_squares") > -1e-12).all())
    least = data["shape"].sel(match="least_squares")
    assert bool((least <= data["shape"].sel(match="trace") + 1e-12).all())


def test_a_deep_linear_network_has_no_mismatch() -> None:
    data = mismatch_parts(kronecker_values(build_lattice(deep_linear())))
    assert float(data["error"].max()) < 1e-20


def test_a_planted_factor_is_all_scale() -> None:
    blocks = kronecker_values(build_lattice(tanh()))
    planted = {name: data.assign(product=2.5 * data["exact"]) for name, data in blocks.items()}
    data = mismatch_parts(planted)
    factor = data["factor"].sel(scope=list(blocks))
    np.testing.assert_allclose(factor, 0.4, rtol=1e-9)
    np.testing.assert_allclose(data["shape"], 0.0, atol=1e-12)
    np.testing.assert_allclose(data["log_bias"], np.log10(2.5), rtol=1e-9)


def test_decades_hold_the_whole_over_and_underestimation() -> None:
    blocks = kronecker_values(build_lattice(tanh()))
    data = mismatch_by_decade(blocks).sel(scope="whole")
    gap = np.concatenate([(d["product"] - d["exact"]).values for d in blocks.values()])
    over = float(data["over"].sum() + data["over_zero"])
    assert over == pytest.approx(np.maximum(gap, 0).sum(), rel=1e-6)
    assert float(data["under"].sum()) == pytest.approx(np.maximum(-gap, 0).sum(), rel=1e-6)
    assert float(data["squared"].sum()) == pytest.approx((gap**2).sum(), rel=1e-6)
