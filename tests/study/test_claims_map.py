"""Where claims hold: the border between verdicts lies at the λ where it was put."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from decomposition.names import CHAIN
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import draws_dataset
from decomposition.shares.claims import NOT_RESOLVED
from decomposition.shares.claims_map import claims_map
from tests.study.planted import DRAWS, scored

MULTIPLIERS = [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
EIGENVALUES = (0.6, 0.6, 0.6, 0.6, 0.3)
EIGENBASIS = (0.6, 0.6, 0.6, 0.3, 0.3)
RISE = (0.3, 0.35, 0.4, 0.45, 0.5)
FLAT = (0.5,) * 5


def planted(*levels: tuple[float, ...], noise: float = 0.001, seed: int = 0) -> xr.DataTree:
    """A cell whose chain has these levels, one tuple for every λ."""
    tree = scored(FLAT, seed=seed).tree
    at = np.array(levels)
    draws = at + noise * np.random.default_rng(seed).normal(size=(DRAWS, *at.shape))
    data = draws_dataset(Draws(at, draws), {"multiplier": MULTIPLIERS, "rung": list(CHAIN)})
    data["damping_value"] = ("multiplier", [0.5 * m for m in MULTIPLIERS])
    tree["levels/at_damping"] = xr.DataTree(data.reindex(rung=tree["levels"]["rung"].values))
    return tree


def mapped(*trees: xr.DataTree) -> xr.Dataset:
    found = claims_map(list(trees), 0.95)
    assert found is not None
    return found


@pytest.mark.parametrize("border", range(1, 6))
def test_the_border_is_where_it_was_put(border: int) -> None:
    """Below it the eigenvalue step alone loses, above it the eigenbasis alone."""
    levels = [EIGENVALUES] * border + [EIGENBASIS] * (6 - border)
    found = mapped(planted(*levels))
    for claim in ("largest", "loss"):
        verdict = found["verdict"].sel(claim=claim, cell=0).values
        np.testing.assert_array_equal(verdict, [1] * border + [-1] * (6 - border))
    assert (found["verdict"].sel(claim="overall") == 1).all()
    said = json.loads(found.attrs["sentences"])["largest"]
    below, above = MULTIPLIERS[border - 1], MULTIPLIERS[border]
    assert said == (
        "The K-FAC eigenvalue mismatch is the costliest step: supported at λ ≤ "
        f"{below:g}; not reproduced at λ ≥ {above:g}"
    )


def test_cells_are_counted() -> None:
    cells = [planted(*[EIGENVALUES] * 3, *[EIGENBASIS] * 3, seed=seed) for seed in range(3)]
    cells.append(planted(*[EIGENBASIS] * 6, seed=3))
    said = json.loads(mapped(*cells).attrs["sentences"])["largest"]
    assert "supported at λ ≤ 0.1 (in up to 3 of 4 cells)" in said
    assert "not reproduced at λ ≥ 1 (in up to 4 of 4 cells)" in said


def test_where_kfac_is_best_there_is_no_loss_to_share() -> None:
    found = mapped(planted(*[RISE] * 2, *[EIGENVALUES] * 4))
    said = json.loads(found.attrs["sentences"])
    assert "K-FAC scores better than H at λ ≤ 0.01, where there is no loss to share" in said["loss"]
    assert (found["verdict"].sel(claim="overall", multiplier=[0.001, 0.01]) == -1).all()
    assert said["overall"].endswith("supported at λ ≥ 0.1; reversed at λ ≤ 0.01")
    assert found["effect"].sel(claim="loss", multiplier=0.1, ci_bound="estimate") == 1.0


def test_noise_is_nowhere_a_verdict() -> None:
    found = mapped(*(planted(*[FLAT] * 6, noise=0.05, seed=seed) for seed in range(3)))
    assert (found["verdict"] == NOT_RESOLVED).all()
    said = json.loads(found.attrs["sentences"])["overall"]
    assert said.endswith(": not resolved at any λ")


def test_optima_and_absolute_dampings_are_told() -> None:
    peak = [tuple(0.1 * (i + 1) - 0.05 * abs(i - 3) for _ in CHAIN) for i in range(6)]
    found = mapped(planted(*peak))
    assert (found["optimum"] == 100.0).all()
    np.testing.assert_array_equal(found["damping_value"].sel(cell=0), np.array(MULTIPLIERS) / 2)


def test_claims_about_matrices_have_no_damping() -> None:
    found = mapped(planted(*[FLAT] * 6)).sel(claim=["error", "inverse_error"])
    assert np.isnan(found["effect"]).all()
    assert (found["verdict"] == NOT_RESOLVED).all()


def test_a_result_has_its_map(tiny: xr.DataTree) -> None:
    found = tiny["claims/map"].to_dataset(inherit=False)
    assert found.sizes["multiplier"] == tiny["shares/at_damping"].sizes["multiplier"]
    assert "cell" not in found.dims
    assert set(json.loads(found.attrs["sentences"])) == {
        "consistently",
        "overall",
        "loss",
        "largest",
    }
