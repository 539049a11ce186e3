"""Operators, the dual Gram matrix and quadrature against the dense path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from decomposition.chain import LATTICE, build_lattice
from decomposition.curvature import EigenpairCurvature
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.spectrum.command import Inspection
from decomposition.spectrum.density import density
from decomposition.spectrum.inspect import lattice
from decomposition.spectrum.measure import Spectrum, exact_spectrum, union
from decomposition.spectrum.quadrature import Estimation, ends, estimated_spectrum
from decomposition.spectrum.scopes import spectra_of
from decomposition.spectrum.summary import effective_dimensions, summary
from tests.cases import classification


def planted(size: int = 160, seed: int = 0) -> EigenpairCurvature:
    """Three outliers of either sign above a bulk of both signs."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([[9.0, 7.0, 5.0, -6.0, -4.0], rng.normal(0.0, 0.3, size - 5)])
    vectors, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return EigenpairCurvature(torch.from_numpy(values), torch.from_numpy(vectors))


def wide() -> Problem:
    """P = 67 parameters, N·C = 15."""
    return classification(mlp((4, 8, 3), nn.GELU, 0), n=5)


PLAN = Estimation(ends=6, probes=12, steps=40)


def by_products(problem: Problem, plan: Estimation) -> dict[str, dict[str, Spectrum]]:
    """Of the whole lattice, in the forms that it has where no P × P matrix is formed."""
    forms = Inspection(method="estimate").plan(problem)
    return spectra_of(lattice(problem, LATTICE, forms), names=LATTICE, problem=problem, plan=plan)


def test_lanczos_finds_the_planted_ends() -> None:
    found = ends(planted(), PLAN).values
    for outlier in (9.0, 7.0, 5.0, -6.0, -4.0):
        assert np.abs(found - outlier).min() < 1e-8


def test_an_estimate_weighs_p_eigenvalues_and_repeats_itself() -> None:
    first, again = (
        estimated_spectrum(planted(), PLAN).measure,
        estimated_spectrum(planted(), PLAN).measure,
    )
    np.testing.assert_allclose(first.weights.sum(1), 160.0)
    np.testing.assert_array_equal(first.nodes, again.nodes)


def test_quadrature_density_lies_within_its_error_bars_of_the_dense_one() -> None:
    curvature = planted()
    both = [
        {"whole": {"mine": exact_spectrum(curvature.eigenvalues())}},
        {"whole": {"mine": estimated_spectrum(curvature, PLAN)}},
    ]
    exact, found = (density(m, threshold=0.1, width=0.15).squeeze() for m in both)
    error = np.hypot(found["standard_error"], 0.01 * exact["density"].max())
    deviation = np.abs(found["density"].values - exact["density"].values) / error.values
    deviation = deviation[np.isfinite(deviation)]  # nothing is told next to zero
    assert deviation.size > 100
    assert float((deviation < 3.0).mean()) > 0.95
    assert float(deviation.max()) < 6.0


@pytest.mark.parametrize("quantity", ["trace", "frobenius", "nuclear", "stable_rank"])
def test_estimated_summaries_lie_within_three_standard_errors(quantity: str) -> None:
    curvature = planted()
    exact, found = (
        summary({"whole": {"mine": m}}).sel(quantity=quantity).squeeze()
        for m in (exact_spectrum(curvature.eigenvalues()), estimated_spectrum(curvature, PLAN))
    )
    gap = abs(float(found["value"]) - float(exact["value"]))
    assert gap < 3.0 * float(found["standard_error"]) + 1e-9


def test_estimated_counts_at_zero_are_not_claimed() -> None:
    data = summary({"whole": {"mine": estimated_spectrum(planted(), PLAN)}}).squeeze()
    assert np.isnan(data["value"].sel(quantity="numerical_rank"))
    count, true = data.sel(quantity="negative_count"), int((planted().eigenvalues() < 0).sum())
    assert float(count["lower"]) <= true <= float(count["upper"])
    assert np.isnan(count["standard_error"])


def test_the_density_integrates_to_the_number_of_eigenvalues() -> None:
    data = density({"whole": {"mine": exact_spectrum(planted().eigenvalues())}}, points=2000)
    total = np.trapezoid(data["density"].squeeze(), data["position"])
    assert total == pytest.approx(160.0, rel=1e-3)


def test_the_large_path_agrees_with_the_dense_one_on_a_problem() -> None:
    problem = wide()
    dense = spectra_of(build_lattice(problem))
    large = by_products(problem, Estimation(ends=3, probes=16, steps=30))
    assert {scope: list(row) for scope, row in large.items()} == {
        scope: list(row) for scope, row in dense.items()
    }
    grid = [1e-3, 1e-2, 1e-1]
    exact, found = (effective_dimensions(m, grid) for m in (dense, large))
    gap = np.abs(found["dimension"] - exact["dimension"])
    assert bool((gap <= 4.0 * found["standard_error"] + 1e-6 * exact["dimension"] + 1e-3).all())


def test_structured_rungs_and_the_dual_are_exact_on_the_large_path() -> None:
    problem = wide()
    dense, large = spectra_of(build_lattice(problem)), by_products(problem, PLAN)
    for rung in ("ggn", "block_ggn", "ekfac_hessian", "ekfac", "kfac"):
        for scope in large:
            found, expected = (s[scope][rung].measure.eigenvalues() for s in (large, dense))
            np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_union_has_the_eigenvalues_of_its_parts() -> None:
    parts = [exact_spectrum(np.array([1.0, 3.0])), exact_spectrum(np.array([2.0]))]
    np.testing.assert_array_equal(union(parts).measure.eigenvalues(), [1.0, 2.0, 3.0])
