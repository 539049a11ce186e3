"""How residuals go with the LDS: over all points, at one λ, and within a cell."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from decomposition.names import CHAIN
from decomposition.report.figures import plot_residual
from decomposition.shares.residual_lds import networks, residual_lds_group
from decomposition.spectrum.residuals import RESIDUALS

TRAIN, GRID = "inverse_residual_train", [0.1, 1.0, 10.0, 100.0]


def cell(residual: np.ndarray, lds: np.ndarray, unit: float = 0.03) -> xr.DataTree:
    """A cell with these (dampings, rungs), errors at every second λ of the grid."""
    errors = xr.Dataset(
        {"damped_value": (("metric", "damping", "rung"), [residual] * len(RESIDUALS))},
        {"metric": list(RESIDUALS), "damping": unit * np.array(GRID[::2]), "rung": list(CHAIN)},
    )
    levels = xr.Dataset(
        {
            "estimate": (("multiplier", "rung"), lds),
            "damping_value": ("multiplier", unit * np.array(GRID)),
        },
        {"multiplier": GRID, "rung": list(CHAIN)},
    )
    return xr.DataTree.from_dict({"/spectral_error": errors, "/levels/at_damping": levels})


@pytest.fixture
def cells() -> list[xr.DataTree]:
    generator = np.random.default_rng(0)
    return [
        cell(generator.lognormal(size=(2, 5)), generator.uniform(size=(4, 5)), unit)
        for unit in (0.01, 0.3, 2.0, 5.0)
    ]


def points(cells: list[xr.DataTree]) -> tuple[np.ndarray, np.ndarray]:
    x = np.stack([c["spectral_error"]["damped_value"].sel(metric=TRAIN).values for c in cells])
    return x, np.stack([c["levels/at_damping"]["estimate"].values[::2] for c in cells])


def test_estimates_are_spearman_over_the_points(cells: list[xr.DataTree]) -> None:
    found = residual_lds_group(cells, 0.95)
    assert found is not None
    assert found["multiplier"].values.tolist() == GRID[::2]
    x, y = points(cells)
    one = found.sel(metric=TRAIN)
    estimate = one.sel(ci_bound="estimate")
    assert float(estimate["rho"]) == pytest.approx(spearmanr(x.ravel(), y.ravel()).statistic)
    for j, multiplier in enumerate(GRID[::2]):
        at = estimate.sel(multiplier=multiplier)
        together = spearmanr(x[:, j].ravel(), y[:, j].ravel()).statistic
        own = [spearmanr(a, b).statistic for a, b in zip(x[:, j], y[:, j], strict=True)]
        assert float(at["rho_at_damping"]) == pytest.approx(together)
        assert float(at["rho_within_cells"]) == pytest.approx(np.mean(own))
        np.testing.assert_allclose(one["rho_of_cell"].sel(multiplier=multiplier), own)
    assert int(found["points"]) == 40
    assert found.attrs["resampled"] == "cells"
    assert (one["rho"].sel(ci_bound="lower") < one["rho"].sel(ci_bound="upper")).all()


def test_checkpoints_of_one_training_are_one_network(cells: list[xr.DataTree]) -> None:
    copies = [one.copy() for one in cells]
    for i, one in enumerate(copies):
        one.attrs["network"] = f"training {i // 2}"
    assert networks(copies) == [0, 0, 2, 2]
    found = residual_lds_group(copies, 0.95)
    assert found is not None
    assert found.attrs["resampled"] == "rungs"  # two networks are too few


def test_within_a_cell_the_order_of_rungs_alone_counts() -> None:
    """Every cell's smaller residual scores higher, and cells of larger residuals score higher."""
    residual = np.tile(np.arange(1.0, 6.0), (2, 1))
    made = [cell(10.0**c * residual, c - 0.1 * np.tile(np.arange(5.0), (4, 1))) for c in range(4)]
    found = residual_lds_group(made, 0.95)
    assert found is not None
    one = found.sel(metric=TRAIN)
    np.testing.assert_allclose(one["rho_within_cells"], -1.0)
    assert float(one["rho"].sel(ci_bound="estimate")) > 0.8


def test_of_one_cell_rungs_are_resampled(cells: list[xr.DataTree]) -> None:
    found = residual_lds_group(cells[:1], 0.95)
    assert found is not None
    assert found.attrs["resampled"] == "rungs"
    assert found["rho"].notnull().all()
    assert found["rho_within_cells"].isnull().all()


def test_without_residuals_or_levels_there_is_nothing(cells: list[xr.DataTree]) -> None:
    bare = xr.DataTree.from_dict({"/spectral_error": cells[0]["spectral_error"].to_dataset()})
    assert residual_lds_group([*cells, bare], 0.95) is None
    other = cells[0].copy(deep=True)
    other["spectral_error"] = xr.DataTree(xr.Dataset({"value": 1.0}))
    assert residual_lds_group([other], 0.95) is None


def test_a_result_has_it_and_draws_it(tiny: xr.DataTree) -> None:
    assert tiny["residual_lds"].attrs["resampled"] == "rungs"
    ax = plot_residual(tiny)
    drawn = sum(len(marks.get_offsets()) for marks in ax.collections)
    assert drawn == int(tiny["residual_lds"]["points"])


def test_one_network_under_several_inversions_is_one(cells: list[xr.DataTree]) -> None:
    made = [cells[0].copy(deep=True) for _ in range(3)]
    for one, name in zip(made, ("damped", "per_layer", "factored"), strict=True):
        one["cells"] = xr.DataTree(xr.Dataset({"inversion": ((), name)}))
    found = residual_lds_group(made, 0.95)
    assert found is not None
    assert found.attrs["resampled"] == "rungs"


def test_a_small_damping_is_no_other() -> None:
    generator = np.random.default_rng(0)
    tiny = cell(generator.lognormal(size=(2, 5)), generator.uniform(size=(4, 5)), 1e-9)
    found = residual_lds_group([tiny], 0.95)
    assert found is not None
    assert found["multiplier"].values.tolist() == GRID[::2]
