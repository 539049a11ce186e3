"""What each step adds to the errors of the matrix, with paired intervals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from decomposition import Settings
from decomposition.names import CHAIN, STEPS
from decomposition.shares.errors import error_shares, errors_at_damping
from decomposition.shares.steps import StepShares
from decomposition.spectrum.overlaps import BLOCK_OVERLAPS
from decomposition.spectrum.residuals import RESIDUALS
from tests.tiny import SETTINGS

TRAIN, COUNT = "inverse_residual_train", 40


def residuals(each: np.ndarray, every: bool) -> xr.Dataset:
    """One damping, a protocol with the same, and the same residuals (rungs, vectors) of all."""
    both = np.broadcast_to(each, (len(RESIDUALS), 1, *each.shape))
    return xr.Dataset(
        {
            "at_damping": (("metric", "damping", "rung", "vector"), both),
            "under": (("metric", "protocol", "rung", "vector"), both),
            "vectors": ("metric", [each.shape[1]] * len(RESIDUALS)),
            "every": ("metric", [int(every)] * len(RESIDUALS)),
            "multiplier": ("damping", [1.0]),
        },
        {"metric": list(RESIDUALS), "damping": [0.5], "protocol": ["tuned"], "rung": list(CHAIN)},
    )


def errors(overlaps: list[list[float]]) -> xr.Dataset:
    steps = [*STEPS, "cross_term"]
    return xr.Dataset(
        {
            "squared_error": (("step", "probe"), np.ones((5, 1))),
            "value": (("metric", "rung"), overlaps),
        },
        {"step": steps, "metric": list(BLOCK_OVERLAPS), "rung": list(CHAIN)},
    )


@pytest.fixture
def each() -> np.ndarray:
    """Large differences between gradients, small ones between rungs."""
    generator = np.random.default_rng(0)
    of_vector = generator.exponential(10.0, COUNT)
    gains = np.array([1.0, 1.1, 1.1, 1.3, 2.0])
    return of_vector * gains[:, None] + 0.01 * generator.standard_normal((5, COUNT))


def shares(each: np.ndarray, every: bool, settings: Settings | None = None) -> StepShares:
    overlaps = errors([[0.9, 1.0, 1.0, 0.8, 0.5]] * 2)
    found = error_shares(overlaps, residuals(each, every), "tuned", settings or Settings())
    return dict(found)[TRAIN]


def test_a_drop_is_the_error_after_minus_the_error_before(each: np.ndarray) -> None:
    found = shares(each, every=True)
    wanted = np.diff(each.mean(1))
    np.testing.assert_allclose(found.drop, wanted[:, None] * np.ones(3))
    np.testing.assert_allclose(found.share[:, 1], wanted / (each[-1] - each[0]).mean())


def test_intervals_are_paired_over_the_gradients(each: np.ndarray) -> None:
    found = shares(each, every=False)
    np.testing.assert_allclose(found.drop[:, 1], np.diff(each.mean(1)))
    for step in range(4):
        gap = each[step + 1] - each[step]
        half = 1.96 * gap.std(ddof=1) / COUNT**0.5
        assert np.ptp(found.drop[step]) == pytest.approx(2 * half, rel=0.25)
    unpaired = 2 * 1.96 * each[0].std(ddof=1) / COUNT**0.5
    assert np.ptp(found.drop[1]) < 0.01 * unpaired
    assert found.share[3, 0] > 0.65
    assert found.share[3, 2] < 0.75


def test_overlaps_are_lost_from_the_block_ggn_on() -> None:
    table = errors([[0.9, 1.0, 1.0, 0.8, 0.5], [0.1, 1.0, 1.0, 1.0, 1.0]])
    found = dict(error_shares(table, None, "tuned", Settings()))
    values, vectors = (found[metric] for metric in BLOCK_OVERLAPS)
    assert values.steps == STEPS[2:]
    np.testing.assert_allclose(values.drop[:, 1], [0.2, 0.3])
    np.testing.assert_allclose(values.share[:, 1], [0.4, 0.6])
    assert not vectors.defined


def test_the_same_at_every_damping_of_the_grid(each: np.ndarray) -> None:
    found = errors_at_damping(residuals(each, every=False), Settings())
    assert found["multiplier"].values.tolist() == [1.0]
    at = found.sel(metric=TRAIN, multiplier=1.0)
    np.testing.assert_array_equal(at["drop"], shares(each, every=False).drop)
    twice = xr.concat([residuals(each, every=False)] * 2, "damping", data_vars="minimal")
    twice["multiplier"] = ("damping", [1.0, 1.0 + 1e-14])
    assert errors_at_damping(twice, Settings())["multiplier"].values.tolist() == [1.0]
    off = residuals(each, every=False).assign(multiplier=("damping", [1.234]))
    assert errors_at_damping(off, Settings()).sizes["multiplier"] == 0


def test_a_rung_without_a_solution_spoils_its_own_steps(each: np.ndarray) -> None:
    each[0] = np.nan
    found = shares(each, every=False)
    assert np.isnan(found.drop[0]).all()
    assert np.isfinite(found.drop[1:]).all()
    assert not found.defined


def test_a_result_shares_out_its_residuals(tiny: xr.DataTree) -> None:
    shares = tiny["shares"].to_dataset().sel(ci_bound="estimate")
    drop = shares["drop"].sel(metric=TRAIN).sum("step")
    np.testing.assert_allclose(drop, shares["total"].sel(metric=TRAIN))
    under = tiny["spectral_error"]["residual"].sel(metric=TRAIN)
    gap = under.sel(rung="kfac") - under.sel(rung="hessian")
    np.testing.assert_allclose(drop, gap.sel(protocol=drop["protocol"]))
    assert set(SETTINGS.multipliers()[::3]) <= set(tiny["shares/errors"]["multiplier"].values)
    at = tiny["spectral_error"]["damped_value"].sel(metric=TRAIN, rung=["hessian", "kfac"])
    total = tiny["shares/errors"]["total"].sel(metric=TRAIN, ci_bound="estimate")
    dampings = tiny["shares/errors"]["damping_value"].values
    np.testing.assert_allclose(at.sel(damping=dampings).diff("rung").squeeze("rung"), total)
