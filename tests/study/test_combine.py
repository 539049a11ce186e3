"""Cells as one result: what stands in it, and that it can be written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.chain.paper_protocol import LADDERS, PAPER_CHAIN
from decomposition.results.write import write_tree
from decomposition.study.combine import combine
from tests.study.planted import scored

DESCENT = (0.9, 0.8, 0.7, 0.6, 0.2)


@pytest.fixture(scope="module")
def groups() -> dict[str, xr.Dataset]:
    ladder = {
        node: 0.5 for steps in LADDERS.values() for step in steps for node in (step.after,)
    } | {"hessian_truncated": 0.8, "kfac_split_mc1_pi": 0.1}
    cells = [scored(DESCENT, epoch=epoch, extra=ladder) for epoch in (10, 100, 1000)]
    return combine(cells, "grid")


def test_drops_are_the_differences_of_the_levels(groups: dict[str, xr.Dataset]) -> None:
    cells = groups["/cells"].sel(ci_bound="estimate")
    drop = cells["level"].sel(rung="ekfac") - cells["level"].sel(rung="kfac")
    np.testing.assert_allclose(cells["drop"].sel(step="eigenvalues"), drop)
    np.testing.assert_allclose(cells["share"].sum("step"), 1.0)
    np.testing.assert_allclose(cells["shapley"].sum("step"), 1.0)
    np.testing.assert_allclose(cells["drop"].sum("step"), cells["total"])


def test_cells_are_told_apart_by_coordinates(groups: dict[str, xr.Dataset]) -> None:
    cells = groups["/cells"]
    assert cells["epoch"].values.tolist() == [10, 100, 1000]
    assert set(cells["hidden"].values) == {"16"}
    assert cells["depth"].values.tolist() == [1, 1, 1]
    assert cells["label"].values[0] == "digits, 16, epoch 10"


def test_each_choice_of_the_paper_has_its_own_drop(groups: dict[str, xr.Dataset]) -> None:
    ladder = groups["/ladder"].sel(ci_bound="estimate", protocol="tuned", cell=0)["drop"]
    assert float(ladder.sel(ladder_step="hessian: truncation")) == pytest.approx(0.1)
    assert float(ladder.sel(ladder_step="kfac: factored_damping")) == pytest.approx(0.4)
    assert float(ladder.sel(ladder_step="ekfac: separate_bias")) == pytest.approx(0.1)


def test_claims_are_tested_under_both_protocols(groups: dict[str, xr.Dataset]) -> None:
    claims = groups["/claims"]
    assert claims["protocol"].values.tolist() == ["equal", "tuned", "paper, equal", "paper, tuned"]
    loss = claims["effect"].sel(claim="loss", protocol="paper, tuned", ci_bound="estimate")
    before, after = PAPER_CHAIN[0].before, PAPER_CHAIN[-1].after
    assert (before, after) == ("hessian_truncated", "kfac_split_mc1_pi")
    np.testing.assert_allclose(loss, (0.5 - 0.1) / (0.8 - 0.1), rtol=1e-6)


def test_without_its_rungs_there_is_no_ladder() -> None:
    groups = combine([scored(DESCENT)], "epoch")
    assert "/ladder" not in groups
    assert "/trends" not in groups
    assert groups["/claims"]["protocol"].values.tolist() == ["equal", "tuned"]


def test_a_study_can_be_written_and_read(groups: dict[str, xr.Dataset], tmp_path: Path) -> None:
    write_tree(xr.DataTree.from_dict(groups), tmp_path / "study.nc")
    with xr.open_datatree(tmp_path / "study.nc", engine="h5netcdf") as tree:
        for path, group in groups.items():
            xr.testing.assert_equal(tree[path].to_dataset(inherit=False).load(), group)
