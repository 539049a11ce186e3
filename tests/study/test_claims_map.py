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
from decomposition.shares.claims_map import PAPER_RUNGS, absolute_map, between, claims_map
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
    return found.sel(chain="exact", rule="damped")


def said_of(found: xr.Dataset, name: str = "exact, damped") -> dict[str, str]:
    return json.loads(found.attrs["sentences"])[name]


@pytest.mark.parametrize("border", range(1, 6))
def test_the_border_is_where_it_was_put(border: int) -> None:
    """Below it the eigenvalue step alone loses, above it the eigenbasis alone."""
    levels = [EIGENVALUES] * border + [EIGENBASIS] * (6 - border)
    found = mapped(planted(*levels))
    for claim in ("largest", "loss"):
        verdict = found["verdict"].sel(claim=claim, cell=0).values
        np.testing.assert_array_equal(verdict, [1] * border + [-1] * (6 - border))
    assert (found["verdict"].sel(claim="overall") == 1).all()
    said = said_of(found)["largest"]
    below, above = MULTIPLIERS[border - 1], MULTIPLIERS[border]
    assert said == (
        "The K-FAC eigenvalue mismatch is the costliest step (weaker than published): supported at "
        f"λ ≤ {below:g}; not reproduced at λ ≥ {above:g}"
    )


def test_cells_are_counted() -> None:
    cells = [planted(*[EIGENVALUES] * 3, *[EIGENBASIS] * 3, seed=seed) for seed in range(3)]
    cells.append(planted(*[EIGENBASIS] * 6, seed=3))
    said = said_of(mapped(*cells))["largest"]
    assert "supported at λ ≤ 0.1 (in up to 3 of 4 cells)" in said
    assert "not reproduced at λ ≥ 1 (in up to 4 of 4 cells)" in said


def test_where_kfac_is_best_there_is_no_loss_to_share() -> None:
    found = mapped(planted(*[RISE] * 2, *[EIGENVALUES] * 4))
    said = said_of(found)
    assert "K-FAC scores better than H at λ ≤ 0.01, where there is no loss to share" in said["loss"]
    assert (found["verdict"].sel(claim="overall", multiplier=[0.001, 0.01]) == -1).all()
    assert said["overall"].endswith("supported at λ ≥ 0.1; reversed at λ ≤ 0.01")
    assert found["effect"].sel(claim="loss", multiplier=0.1, ci_bound="estimate") == 1.0


def test_noise_is_nowhere_a_verdict() -> None:
    found = mapped(*(planted(*[FLAT] * 6, noise=0.05, seed=seed) for seed in range(3)))
    assert (found["verdict"] == NOT_RESOLVED).all()
    said = said_of(found)["overall"]
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
    assert set(said_of(found)) == {
        "consistently",
        "overall",
        "residual",
        "loss",
        "largest",
    }
    tested = (
        tiny["claims/map"]
        .to_dataset()["p_value"]
        .sel(chain="exact", rule="damped")
        .notnull()
        .sum("multiplier")
    )
    residual, levels = int(tested.sel(claim="residual")), int(tested.sel(claim="overall"))
    assert 0 < residual < levels  # it is taken at some dampings


def with_paper(tree: xr.DataTree, *levels: tuple[float, ...], noise: float = 0.001) -> xr.DataTree:
    """The cell with the paper's rungs beside it, six levels for every λ; the GGN is shared."""
    before = tree["levels/at_damping"].to_dataset().sel(rung=list(CHAIN))
    new = [rung for rung in PAPER_RUNGS if rung != "ggn"]
    at = np.array(levels)[:, [i for i, rung in enumerate(PAPER_RUNGS) if rung != "ggn"]]
    draws = at + noise * np.random.default_rng(9).normal(size=(DRAWS, *at.shape))
    beside = draws_dataset(Draws(at, draws), {"multiplier": MULTIPLIERS, "rung": new})
    both = xr.concat([before.drop_vars("damping_value"), beside], "rung")
    both["damping_value"] = before["damping_value"]
    found = tree.copy()
    del found["levels"]
    found["levels"] = xr.DataTree()
    found["levels/at_damping"] = xr.DataTree(both)
    return found


def test_the_papers_chain_has_a_map_of_its_own_in_which_factored_damping_is_a_step() -> None:
    eigenvalues = (0.6, 0.6, 0.6, 0.6, 0.3, 0.3)
    damping = (0.6, 0.6, 0.6, 0.6, 0.6, 0.3)
    plain = planted(*[EIGENBASIS] * 6)
    found = claims_map([with_paper(plain, *[eigenvalues] * 2, *[damping] * 4)], 0.95)
    assert found is not None
    assert found["chain"].values.tolist() == ["exact", "paper"]
    verdict = found["verdict"].sel(claim="loss", rule="damped", cell=0)
    np.testing.assert_array_equal(verdict.sel(chain="exact"), [-1] * 6)
    np.testing.assert_array_equal(verdict.sel(chain="paper"), [1, 1, -1, -1, -1, -1])
    assert "supported at λ ≤ 0.01; not repr" in said_of(found, "paper, damped")["loss"]


def test_cells_stand_under_their_own_inversion_and_are_adjusted_among_their_kind() -> None:
    cells = [planted(*[EIGENVALUES] * 6, seed=seed) for seed in range(3)]
    cells[2]["cells"] = xr.DataTree(xr.Dataset({"inversion": ((), "factored")}))
    found = claims_map(cells, 0.95)
    assert found is not None
    assert found["rule"].values.tolist() == ["damped", "factored"]
    p = found["p_value"].sel(claim="largest", chain="exact").isel(multiplier=0)
    assert np.isfinite(p.sel(rule="damped", cell=[0, 1])).all()
    assert np.isnan(p.sel(rule="damped", cell=2))
    assert np.isnan(p.sel(rule="factored", cell=[0, 1])).all()
    alone = mapped(*cells[:2])
    np.testing.assert_array_equal(
        alone["p_value"], found["p_value"].sel(chain="exact", rule="damped", cell=[0, 1])
    )
    assert "(in up to 2 of 2 cells)" in said_of(found)["largest"]
    assert "cells" not in said_of(found, "exact, factored")["largest"]


@pytest.mark.parametrize("border", [2, 4])
def test_the_border_lies_at_the_same_absolute_damping(border: int) -> None:
    """λ is half the multiplier; between a level of either kind both steps lose alike."""
    found = absolute_map([planted(*[EIGENVALUES] * border, *[EIGENBASIS] * (6 - border))], 0.95)
    assert found is not None
    lambdas = found["damping"].values
    np.testing.assert_allclose(lambdas, [1e-3, 1e-2, 1e-1, 1.0, 10.0])
    verdict = found["verdict"].sel(claim="largest", chain="exact", rule="damped", cell=0).values
    low, high = (0.5 * MULTIPLIERS[i] for i in (border - 1, border))
    assert (verdict[lambdas <= low] == 1).all()
    assert (verdict[lambdas >= high] == -1).all()


def test_levels_between_two_dampings_are_linear_in_its_logarithm() -> None:
    levels = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    found = between(
        Draws(levels, levels[None]), np.array([1e-2, 1.0, 1e2]), np.array([0.1, 1, 1e2])
    )
    np.testing.assert_allclose(found.estimate, [[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(found.draws[0], found.estimate)


def test_no_common_damping_no_absolute_map() -> None:
    one, other = planted(*[FLAT] * 6), planted(*[FLAT] * 6, seed=1)
    far = other["levels/at_damping"].to_dataset(inherit=False)
    far["damping_value"] = 1e9 * far["damping_value"]
    other["levels/at_damping"] = xr.DataTree(far)
    assert absolute_map([one, other], 0.95) is None


def test_factored_damping_is_no_worse_hessian() -> None:
    """Every step to a worse Hessian loses, and the damping of the last one gains."""
    descent = (0.65, 0.6, 0.5, 0.45, 0.4, 0.5)  # the GGN is that of the other chain
    found = claims_map([with_paper(planted(*[EIGENBASIS] * 6), *[descent] * 6)], 0.95)
    assert found is not None
    here = found.sel(claim="consistently", chain="paper", rule="damped", cell=0)
    assert (here["verdict"] == 1).all()
    np.testing.assert_array_equal(here["effect"].sel(ci_bound="estimate"), 1.0)


def test_levels_of_the_paper_that_are_not_known_have_no_map() -> None:
    """The GGN belongs to both chains."""
    known = with_paper(planted(*[EIGENBASIS] * 6), *[(0.6,) * 6] * 6)
    at = known["levels/at_damping"].to_dataset()
    unknown = at.where(at["rung"].isin(list(CHAIN)))
    known["levels/at_damping"] = xr.DataTree(unknown.assign(damping_value=at["damping_value"]))
    found = claims_map([known], 0.95)
    assert found is not None
    assert found["chain"].values.tolist() == ["exact"]


def test_several_base_models_have_no_absolute_damping() -> None:
    tree = planted(*[EIGENBASIS] * 6)
    levels = tree["levels"].to_dataset(inherit=False).drop_vars("base_model", errors="ignore")
    tree["levels"].dataset = levels.isel(base_model=[0, 0])
    assert absolute_map([tree], 0.95) is None
