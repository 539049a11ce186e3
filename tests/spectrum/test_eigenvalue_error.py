"""K-FAC's error from the block GGN in three parts that add up, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from decomposition.chain import build_chain
from decomposition.problem import Problem
from decomposition.spectrum.mismatch import eigenvalue_error


def test_the_parts_add_up_layer_by_layer(problem: Problem) -> None:
    chain = build_chain(problem)
    found = eigenvalue_error(chain)
    assert found is not None
    exact, ekfac, kfac = (chain[r].dense().numpy() for r in ("block_ggn", "ekfac", "kfac"))
    for block in problem.blocks:
        b, e, k = (m[block.slice, block.slice] for m in (exact, ekfac, kfac))
        here = found["squared"].sel(layer=block.name)
        scale = (np.linalg.norm(b) ** 2 + np.linalg.norm(k) ** 2) * 1e-12
        c = np.sum(e * k) / np.sum(k * k) if k.any() else 0.0
        wanted = [np.sum((k - c * k) ** 2), np.sum((e - c * k) ** 2), np.sum((b - e) ** 2)]
        np.testing.assert_allclose(here, wanted, atol=scale)
        assert float(here.sum()) == pytest.approx(np.sum((b - k) ** 2), abs=scale)


def test_a_result_has_them(tiny: xr.DataTree) -> None:
    squared = tiny["eigenvalue_error"]["squared"]
    steps = tiny["spectral_error"]["squared_error"].sum("probe")
    basis, diagonal = (float(steps.sel(step=s)) for s in ("eigenbasis", "eigenvalues"))
    assert float(squared.sel(part="basis").sum()) == pytest.approx(basis)
    assert float(squared.sel(part=["scale", "diagonal"]).sum()) == pytest.approx(diagonal)
