"""Trends on cells whose levels follow a line."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from decomposition.study.trends import trends_group
from tests.study.planted import Planted, scored

EPOCHS = (10, 20, 40, 80)


def trends(cells: list[Planted], factor: str, level: float) -> xr.Dataset | None:
    return trends_group([one.cell for one in cells], [one.tree for one in cells], factor, level)


def along_epochs(slope: float, noise: float = 0.001, offset: float = 0.0) -> list[Planted]:
    """The Hessian's level falls by ``slope`` per doubling, the other rungs' stay."""
    return [
        scored((0.8 + offset - slope * i, 0.4, 0.3, 0.2, 0.1), noise, epoch=epoch, seed=0)
        for i, epoch in enumerate(EPOCHS)
    ]


def test_a_planted_slope_is_found() -> None:
    found = trends(along_epochs(0.05), "epoch", 0.95)
    assert found is not None
    found = found.sel(protocol="tuned")
    low, estimate, high = found["slope"].sel(quantity="level hessian by epoch").values
    assert estimate == pytest.approx(-0.05)
    assert low < -0.05 < high
    fall = found["slope"].sel(quantity="drop linearisation by epoch", ci_bound="estimate")
    assert float(fall) == pytest.approx(-0.05)
    assert float(found["p_value"].sel(quantity="level hessian by epoch")) < 0.01
    assert float(found["p_value"].sel(quantity="level kfac by epoch")) > 0.05


def test_each_architecture_has_its_own_intercept() -> None:
    wide = [
        scored((0.3 - 0.05 * i, 0.4, 0.3, 0.2, 0.1), epoch=epoch, hidden=(64,), seed=0)
        for i, epoch in enumerate(EPOCHS[2:])
    ]
    found = trends([*along_epochs(0.05), *wide], "epoch", 0.95)
    assert found is not None
    slope = found["slope"].sel(quantity="level hessian by epoch", ci_bound="estimate")
    np.testing.assert_allclose(slope.values, -0.05, atol=1e-9)


def test_a_factor_that_does_not_vary_has_no_trend() -> None:
    assert trends(along_epochs(0.05), "width", 0.95) is None


def test_sizes_of_the_data_are_compared_after_as_many_updates() -> None:
    sizes = (200, 300, 400)
    cells = [
        scored((0.8 - 0.05 * np.log2(n), 0.4, 0.3, 0.2, 0.1), epoch=round(4e4 / n), examples=n)
        for n in sizes
    ]
    found = trends(cells, "examples", 0.95)
    assert found is not None
    slope = found["slope"].sel(quantity="level hessian by examples", ci_bound="estimate")
    np.testing.assert_allclose(slope.values, -0.05, atol=1e-9)


def test_the_trend_with_damping_is_per_decade() -> None:
    found = trends(along_epochs(0.0), "multiplier", 0.95)
    assert found is not None
    np.testing.assert_allclose(found["slope"].sel(ci_bound="estimate").values, 0.0, atol=1e-12)
    assert (found["p_value"] > 0.001).all()
    assert set(found["unit"].values) == {"LDS per decade of λ"}
