"""Claims on cells whose levels are known: supported, contradicted, or not resolved."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from decomposition.shares.claims import claims_group
from tests.study.planted import Planted, scored

DESCENT = (0.9, 0.8, 0.7, 0.6, 0.2)
"""Every step loses; the eigenvalue step 4/7 of the total."""
RISE = (0.2, 0.6, 0.7, 0.8, 0.9)
ELSEWHERE = (0.9, 0.5, 0.45, 0.42, 0.4)
"""The eigenvalue step loses 4%."""
ALL_GAIN = (0.2, 0.4, 0.6, 0.8, 0.81)
"""Every step gains, the eigenvalue step least: it leads, and costs nothing."""
SLIGHT = (0.5002, 0.5, 0.5, 0.5, 0.5)
FLAT = (0.5, 0.5, 0.5, 0.5, 0.5)


def claims(*cells: Planted) -> xr.Dataset:
    found = claims_group([one.tree for one in cells], 0.95)
    assert found is not None
    return found.sel(protocol="tuned")


def verdicts(name: str, *cells: Planted) -> list[int]:
    found = claims(*cells).sel(claim=name)
    return [*found["verdict"].values.tolist(), int(found["pooled_verdict"])]


@pytest.mark.parametrize(
    ("name", "levels", "expected"),
    [
        ("consistently", DESCENT, 1),
        ("consistently", RISE, -1),
        ("consistently", FLAT, 0),
        ("overall", DESCENT, 1),
        ("overall", RISE, -1),
        ("overall", FLAT, 0),
        ("loss", DESCENT, 1),
        ("loss", ELSEWHERE, -1),
        ("loss", FLAT, 0),
        ("loss", RISE, 0),
        ("largest", DESCENT, 1),
        ("largest", ELSEWHERE, -1),
        ("largest", FLAT, 0),
        ("largest", ALL_GAIN, -1),
    ],
)
def test_a_clear_cell_has_a_clear_verdict(
    name: str, levels: tuple[float, ...], expected: int
) -> None:
    assert verdicts(name, scored(levels)) == [expected, expected]


@pytest.mark.parametrize("name", ["consistently", "overall", "loss", "largest"])
def test_noise_resolves_nothing(name: str) -> None:
    assert verdicts(name, scored(DESCENT, noise=1.0)) == [0, 0]


def test_consistently_fails_with_one_cell_but_the_mean_may_stand() -> None:
    cells = [scored(DESCENT, seed=seed) for seed in range(3)]
    broken = scored((0.9, 0.95, 0.7, 0.6, 0.2), seed=3)
    assert verdicts("consistently", *cells) == [1, 1, 1, 1]
    assert verdicts("consistently", *cells, broken) == [1, 1, 1, -1, -1]
    assert verdicts("overall", *cells, broken) == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(("share", "expected"), [(0.6, 1), (0.4, -1), (0.5, 0)])
@pytest.mark.parametrize("name", ["error", "inverse_error"])
def test_shares_of_exact_errors_are_compared_with_a_half(
    name: str, share: float, expected: int
) -> None:
    found = claims(scored(DESCENT, share=share)).sel(claim=name)
    assert int(found["verdict"].squeeze()) == int(found["pooled_verdict"]) == expected
    np.testing.assert_allclose(found["effect"].values, share)
    assert np.isnan(found["p_value"].values).all()


def test_effects_are_what_they_say() -> None:
    found = claims(scored(DESCENT)).sel(cell=0, ci_bound="estimate")["effect"]
    assert float(found.sel(claim="consistently")) == 1.0
    assert float(found.sel(claim="overall")) == pytest.approx(0.7)
    assert float(found.sel(claim="loss")) == pytest.approx(4 / 7)
    assert float(found.sel(claim="largest")) == pytest.approx(0.3)
    reverse = claims(scored(RISE)).sel(cell=0, ci_bound="estimate", claim="consistently")
    assert float(reverse["effect"]) == -1.0


def test_pairs_of_neighbours_hold_are_reversed_or_are_not_resolved() -> None:
    """0.9 > 0.8 = 0.8 < 0.9 > 0.5: half of the steps lose, one gains, one does nothing."""
    found = claims(scored((0.9, 0.8, 0.8, 0.9, 0.5)))["neighbours"].sel(cell=0)
    assert found.to_series().to_dict() == {
        "supported": 0.5,
        "not resolved": 0.25,
        "contradicted": 0.25,
    }


def test_a_share_of_nothing_is_undefined() -> None:
    found = claims(scored(FLAT)).sel(claim="loss")
    assert np.isnan(found["effect"].values).all()
    assert np.isnan(found["pooled_effect"].values).all()


def test_counts_are_those_of_the_verdicts() -> None:
    found = claims(scored(DESCENT), scored(ELSEWHERE, seed=1), scored(SLIGHT, seed=2))
    counts = found["counts"].sel(claim="loss")
    assert counts.sel(outcome="supported") == 1
    assert counts.sel(outcome="contradicted") == 1
    assert counts.sel(outcome="not resolved") == 1


def test_where_nothing_is_lost_no_share_of_a_loss_is_tested() -> None:
    found = claims(scored(DESCENT), scored(RISE, seed=1)).sel(claim="loss")
    assert found["counts"].values.tolist() == [1, 0, 0]
    assert np.isnan(found["p_value"].values).tolist() == [False, True]
    assert np.isnan(found["effect"].values).all(1).tolist() == [False, True]


def test_a_cell_without_a_level_is_not_tested_and_spoils_no_mean() -> None:
    nan = float("nan")
    cells = [scored(DESCENT), scored((nan, 0.8, 0.7, 0.6, 0.2), seed=1)]
    found = claims(*cells).sel(claim=["overall", "loss"])
    assert found["counts"].values.tolist() == [[1, 0, 0]] * 2
    assert found["pooled_verdict"].values.tolist() == [1, 1]
    assert found["pooled_effect"].sel(ci_bound="estimate").values[0] == pytest.approx(0.7)
    nothing = claims(cells[1]).sel(claim="overall")
    assert nothing["counts"].values.tolist() == [0, 0, 0]
    assert np.isnan(nothing["pooled_effect"].values).all()


def test_a_reversal_counts_though_another_level_is_not_known() -> None:
    found = claims(scored((float("nan"), 0.5, 0.7, 0.6, 0.2))).sel(claim="consistently")
    assert found["counts"].values.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("share", "expected"), [(0.8, 1), (0.2, -1), (0.5, 0)])
def test_the_majority_of_the_residual_is_tested_on_its_gradients(
    share: float, expected: int
) -> None:
    residual = (0.1, 0.2, 0.2, 1.1 - share, 1.1)
    found = claims(scored(DESCENT, residual=residual)).sel(claim="residual")
    assert found["verdict"].values.tolist() == [expected]
    lower, effect, upper = found["effect"].values[0]
    assert effect == pytest.approx(share, abs=0.02)
    assert lower < effect < upper
    unknown = claims(scored(DESCENT)).sel(claim="residual")
    assert unknown["counts"].values.tolist() == [0, 0, 0]


def test_more_cells_make_each_verdict_harder() -> None:
    """Holm over the cells: a p of 0.01 stands alone and falls among twenty."""
    total = 0.0024  # 2.4 standard errors of a difference of two levels with sd 0.001/√2
    levels = (0.5 + total, 0.5, 0.5, 0.5, 0.5)
    noise = 0.001 / np.sqrt(2)
    one = scored(levels, noise=noise, seed=100)
    assert verdicts("overall", one)[0] == 1
    many = [scored(FLAT, noise=noise, seed=seed) for seed in range(19)]
    assert verdicts("overall", one, *many)[0] == 0


def test_false_verdicts_on_no_effect_are_as_rare_as_said() -> None:
    """Centred draws around an estimate that is itself off by one noise draw."""
    generator = np.random.default_rng(3)
    wrong = 0
    for seed in range(200):
        levels = 0.5 + 0.01 * generator.normal(size=5)
        wrong += verdicts("overall", scored(tuple(levels), noise=0.01, seed=seed))[0] != 0
    assert wrong <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_many_cells_do_not_outrun_the_resamples() -> None:
    """Holm over 40 cells asks for p below what 1,500 resamples can count to."""
    found = claims(*(scored(RISE, noise=0.01, seed=seed) for seed in range(40)))
    assert (found["verdict"].sel(claim="consistently") == -1).all()
