"""Overlaps of the blocks (Eq. 16 and 17), against their definitions in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from decomposition.chain import build_chain, build_lattice
from decomposition.chain.plan import Choice, Plan
from decomposition.curvature import BlockDiagonal, Curvature, DenseCurvature, SolveCurvature
from decomposition.names import CHAIN
from decomposition.problem import Problem
from decomposition.spectrum.overlaps import BLOCK_OVERLAPS, block_overlaps
from tests import cases

VALUES, VECTORS = BLOCK_OVERLAPS
K = 2


def by_definition(c: np.ndarray, g: np.ndarray, k: int) -> list[float]:
    (mu, v), (nu, u) = np.linalg.eigh(c), np.linalg.eigh(g)
    leading = [b[:, np.argsort(-abs(e))[:k]] for e, b in ((mu, v), (nu, u))]
    return [
        1 - np.linalg.norm(np.sort(mu) - np.sort(nu)) / np.linalg.norm(nu),
        np.linalg.norm(leading[0].T @ leading[1]) ** 2 / k,
    ]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return cases.gelu()


@pytest.fixture(scope="module")
def rungs(problem: Problem) -> dict[str, Curvature]:
    return build_lattice(problem, extra={"mine": _solver})


def _solver(problem: Problem) -> Curvature:
    return SolveCurvature(problem.num_parameters, lambda v, damping: v / damping)


@pytest.fixture(scope="module")
def found(rungs: dict[str, Curvature]) -> dict[str, xr.Dataset]:
    return block_overlaps(rungs, K)


@pytest.mark.parametrize("rung", [*CHAIN, "block_hessian", "ekfac_hessian"])
def test_every_block_by_definition(
    rung: str, rungs: dict[str, Curvature], problem: Problem, found: dict[str, xr.Dataset]
) -> None:
    c, g = rungs[rung].dense().numpy(), rungs["block_ggn"].dense().numpy()
    wanted, sizes = [], []
    for block in problem.blocks:
        part = block.slice
        wanted.append(by_definition(c[part, part], g[part, part], K))
        sizes.append(block.size)
        rows = found[f"/spectral_error/{block.name}"]
        assert rows["leading"] == K
        np.testing.assert_allclose(rows["value"].sel(rung=rung), wanted[-1], atol=1e-8)
    mean = np.array(sizes) @ np.array(wanted) / sum(sizes)
    np.testing.assert_allclose(found["/spectral_error"]["value"].sel(rung=rung), mean, atol=1e-8)


def test_the_block_ggn_is_itself_and_a_solver_has_no_blocks(found: dict[str, xr.Dataset]) -> None:
    for rows in found.values():
        assert (rows["value"].sel(rung=["ggn", "block_ggn"]) == 1.0).all()
        assert rows["value"].sel(rung="mine").isnull().all()


def test_an_error_beyond_the_spectrum_is_negative() -> None:
    g, c = torch.diag(torch.tensor([1.0, 2.0])), torch.diag(torch.tensor([9.0, 4.0]))
    made = {"block_ggn": BlockDiagonal({"a": g}), "far": BlockDiagonal({"a": c})}
    value = block_overlaps(made, 1)["/spectral_error"]["value"].sel(rung="far")
    wanted = 1 - np.hypot(3.0, 7.0) / np.hypot(1.0, 2.0)
    assert float(value.sel(metric=VALUES)) == pytest.approx(wanted)
    assert float(value.sel(metric=VECTORS)) == 0.0


def test_a_layer_without_curvature_is_like_another_one_alone() -> None:
    nothing, some = torch.zeros(2, 2), torch.eye(2)
    made = {"block_ggn": nothing, "none": nothing.clone(), "some": some}
    table = {name: BlockDiagonal({"a": matrix}) for name, matrix in made.items()}
    value = block_overlaps(table, 1)["/spectral_error"]["value"].sel(metric=VALUES)
    assert float(value.sel(rung="none")) == 1.0
    assert np.isnan(float(value.sel(rung="some")))


def test_a_small_block_has_all_its_eigenvectors_compared() -> None:
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    made = {"block_ggn": BlockDiagonal({"a": matrix}), "other": BlockDiagonal({"a": torch.eye(2)})}
    whole, block = block_overlaps(made, 5).values()
    assert (int(whole["leading"]), int(block["leading"])) == (5, 2)
    assert float(whole["value"].sel(metric=VECTORS, rung="other")) == pytest.approx(1.0)


def test_gram_matrices_tell_the_same() -> None:
    """Wide layers and few examples: blocks by their Gram matrices."""
    problem = cases.classification(cases.mlp((4, 14, 3), torch.nn.Tanh, 0), n=6)
    dual = Plan(
        {name: Choice(name, "dual", 0, "") for name in CHAIN}, 0, lambda rows: ("dual", 0, "")
    )
    formed = build_chain(problem)
    dense = block_overlaps(formed, K)
    rungs = build_chain(problem, plan=dual)
    assert any(b.eigenbasis is None for b in rungs["block_ggn"].diagonal_blocks().values())
    found = block_overlaps(rungs | {"hessian": formed["hessian"]}, K)
    for path, rows in dense.items():
        xr.testing.assert_allclose(found[path]["value"], rows["value"], atol=1e-8)


def test_known_by_products_there_is_nothing_to_tell() -> None:
    block_ggn = SolveCurvature(3, lambda v, damping: v / damping)
    rows = block_overlaps({"block_ggn": block_ggn, "eye": DenseCurvature(torch.eye(3))}, 1)
    assert list(rows) == ["/spectral_error"]
    assert rows["/spectral_error"]["value"].isnull().all()


def test_a_result_has_them_whole_and_by_block(tiny: xr.DataTree) -> None:
    whole = tiny["spectral_error"].to_dataset()
    assert (whole["value"].sel(metric=list(BLOCK_OVERLAPS), rung="block_ggn") == 1.0).all()
    blocks = [child.to_dataset() for child in tiny["spectral_error"].children.values()]
    weights = [int(tiny["spectrum"][n]["block_index"].size) for n in tiny["spectrum"].children]
    kfac = [float(b["value"].sel(metric=VALUES, rung="kfac")) for b in blocks]
    mean = float(whole["value"].sel(metric=VALUES, rung="kfac"))
    assert whole["leading"].dtype.kind == "i"
    assert mean == pytest.approx(np.average(kfac, weights=weights))
    assert set(BLOCK_OVERLAPS) <= set(tiny["prediction"]["metric"].values)
