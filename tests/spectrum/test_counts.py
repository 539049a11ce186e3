"""Counts of eigenvalues: exact where they are known, between true bounds where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.curvature import EigenpairCurvature
from decomposition.spectrum.counts import counts_below
from decomposition.spectrum.measure import exact_spectrum
from decomposition.spectrum.quadrature import Estimation, estimated_spectrum
from decomposition.spectrum.summary import STATISTICS


def planted(seed: int, size: int = 150) -> EigenpairCurvature:
    """Outliers of either sign, a bulk of both, and a null space of 60."""
    rng = np.random.default_rng(seed)
    bulk = rng.normal(0.0, 0.2, size - 64)
    values = np.concatenate([[8.0, 5.0, 3.0, -4.0], np.zeros(60), bulk])
    vectors, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return EigenpairCurvature(torch.from_numpy(values), torch.from_numpy(vectors))


def test_known_eigenvalues_are_counted_and_rounding_is_zero() -> None:
    spectrum = exact_spectrum(np.array([-1.0, -1e-15, 0.0, 1e-16, 2.0]), 2)
    found = counts_below(spectrum, np.array([-2.0, -0.5, 0.0, 1e-20, 1.0, 3.0]))
    np.testing.assert_array_equal(found.value, [0, 1, 1, 4, 4, 5])
    np.testing.assert_array_equal(found.lower, found.value)
    np.testing.assert_array_equal(found.upper, found.value)


@pytest.mark.parametrize("steps", [4, 12, 30])
@pytest.mark.parametrize("seed", range(4))
def test_counts_lie_between_their_bounds(seed: int, steps: int) -> None:
    curvature = planted(seed)
    plan = Estimation(ends=5, probes=4, steps=steps, seed=seed, tolerance=1e-2, end_steps=20)
    at = np.linspace(-5.01, 9.02, 113)
    found = counts_below(estimated_spectrum(curvature, plan), at)
    true = (curvature.eigenvalues().numpy()[:, None] < at).sum(0)
    assert (found.lower <= true + 1e-6).all()
    assert (found.upper >= true - 1e-6).all()
    assert (found.lower <= found.value + 1e-9).all()
    assert (found.value <= found.upper + 1e-9).all()


def test_more_steps_bring_the_bounds_together() -> None:
    at = np.array([-0.3, 0.3])
    widths = []
    for steps in (5, 40):
        plan = Estimation(ends=5, probes=4, steps=steps, tolerance=1e-2, end_steps=20)
        found = counts_below(estimated_spectrum(planted(0), plan), at)
        widths.append(found.upper - found.lower)
    assert (widths[1] < 0.5 * widths[0]).all()


@pytest.mark.parametrize("steps", [4, 8, 24])
@pytest.mark.parametrize("quantity", ["nuclear", "negative_share", "trace"])
def test_errors_cover_what_few_steps_leave_open(quantity: str, steps: int) -> None:
    """|μ| has a kink at 0, where most eigenvalues lie: the spread over probes misses that."""
    function = STATISTICS[quantity][0]
    for seed in range(4):
        curvature = planted(seed)
        plan = Estimation(ends=5, probes=4, steps=steps, seed=seed, tolerance=1e-2, end_steps=20)
        found = estimated_spectrum(curvature, plan).statistic(function)
        values = curvature.eigenvalues().numpy()
        gap = abs(found - function(values, np.ones(150)))
        assert gap <= 3.0 * found.error + 1e-3 * abs(values).sum()


def test_a_whole_krylov_space_is_exact() -> None:
    plan = Estimation(ends=80, probes=2, steps=150, end_steps=150, tolerance=1e-6)
    spectrum = estimated_spectrum(planted(1), plan)
    exact = planted(1).eigenvalues().numpy()
    nuclear = spectrum.statistic(STATISTICS["nuclear"][0])
    assert nuclear == pytest.approx(np.abs(exact).sum(), rel=1e-6)
