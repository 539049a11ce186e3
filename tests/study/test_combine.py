"""Cells as one result: what stands in it, and that it can be written and read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.chain.paper_protocol import LADDERS, PAPER_CHAIN
from decomposition.results.write import write_tree
from decomposition.study.combine import _network, combine
from tests.study.planted import Planted, scored

DESCENT = (0.9, 0.8, 0.7, 0.6, 0.2)


def together(cells: list[Planted], factor: str) -> dict[str, xr.Dataset]:
    return combine([one.cell for one in cells], [one.tree for one in cells], factor)


@pytest.fixture(scope="module")
def groups() -> dict[str, xr.Dataset]:
    ladder = {
        node: 0.5 for steps in LADDERS.values() for step in steps for node in (step.after,)
    } | {"hessian_truncated": 0.8, "kfac_split_mc1": 0.4, "kfac_split_mc1_pi": 0.1}
    cells = [scored(DESCENT, epoch=epoch, extra=ladder) for epoch in (10, 100, 1000)]
    return together(cells, "grid")


def test_drops_are_the_differences_of_the_levels(groups: dict[str, xr.Dataset]) -> None:
    shares = groups["/shares"].sel(ci_bound="estimate")
    lds = shares.sel(metric="lds")
    drop = shares["level"].sel(rung="ekfac") - shares["level"].sel(rung="kfac")
    np.testing.assert_allclose(lds["drop"].sel(step="eigenvalues"), drop)
    np.testing.assert_allclose(lds["share"].sum("step"), 1.0)
    np.testing.assert_allclose(lds["drop"].sum("step"), lds["total"])
    shapley = groups["/shares/shapley"]["shapley"].sel(ci_bound="estimate", metric="lds")
    np.testing.assert_allclose(shapley.sum("step"), 1.0)


def test_many_cells_have_the_groups_of_one_with_cell_in_front(
    groups: dict[str, xr.Dataset],
) -> None:
    one = together([scored(DESCENT)], "grid")
    assert set(one) == set(groups) - {"/trends", "/protocol_ladder"}
    level = groups["/shares"]["level"]
    assert level.dims == ("cell", "protocol", "rung", "ci_bound")
    assert "/levels" not in groups


def test_the_cells_themselves_stay_as_they_are() -> None:
    one = scored(DESCENT)
    together([one], "grid")
    assert one.tree.attrs == {}


def test_checkpoints_of_one_training_are_no_more_networks_than_one() -> None:
    cells = [scored(DESCENT, epoch=epoch) for epoch in (10, 100)]
    other = scored(DESCENT, seed=1)
    keys = [_network(one.cell) for one in (*cells, other)]
    assert keys[0] == keys[1] != keys[2]


def test_a_verdict_belongs_to_its_cell(groups: dict[str, xr.Dataset]) -> None:
    verdicts = json.loads(groups["/shares"].attrs["verdict"])
    assert set(verdicts) == {"0", "1", "2"}
    assert all(one["tuned"]["candidate"] == "eigenvalues" for one in verdicts.values())


def test_what_a_cell_lacks_is_missing_there_alone() -> None:
    cells = [scored(DESCENT), scored(DESCENT, seed=1, extra={"mine": 0.5})]
    level = together(cells, "grid")["/shares"]["level"].sel(rung="mine")
    assert level.sel(cell=0).isnull().all()
    assert level.sel(cell=1).notnull().all()


def test_a_block_of_some_cells_has_the_rungs_of_all() -> None:
    cells = [scored(DESCENT), scored(DESCENT, extra={"mine": 0.4})]
    rungs = cells[0].tree["spectral_error"]["rung"].values
    value = xr.Dataset({"value": (("metric", "rung"), np.ones((1, len(rungs))))})
    cells[0].tree["spectral_error/deep"] = xr.DataTree(value)
    found = together(cells, "grid")
    whole, block = found["/spectral_error"], found["/spectral_error/deep"]
    np.testing.assert_array_equal(whole["rung"], block["rung"])
    assert block["value"].sel(cell=0, rung=rungs).notnull().all()
    assert block["value"].sel(cell=1).isnull().all()


def test_cells_are_told_apart_by_coordinates(groups: dict[str, xr.Dataset]) -> None:
    cells = groups["/cells"]
    assert cells["epoch"].values.tolist() == [10, 100, 1000]
    assert set(cells["hidden"].values) == {"16"}
    assert cells["depth"].values.tolist() == [1, 1, 1]
    assert cells["label"].values[0] == "digits, 16, epoch 10"


def test_each_choice_of_the_paper_has_its_own_drop(groups: dict[str, xr.Dataset]) -> None:
    ladder = groups["/protocol_ladder"].sel(ci_bound="estimate", protocol="tuned", cell=0)["drop"]
    assert float(ladder.sel(ladder_step="hessian: truncation")) == pytest.approx(0.1)
    assert float(ladder.sel(ladder_step="kfac: factored_damping")) == pytest.approx(0.3)
    assert float(ladder.sel(ladder_step="ekfac: separate_bias")) == pytest.approx(0.1)


def test_claims_are_tested_under_both_protocols(groups: dict[str, xr.Dataset]) -> None:
    claims = groups["/claims"]
    assert claims["protocol"].values.tolist() == ["equal", "tuned", "paper, equal", "paper, tuned"]
    loss = claims["effect"].sel(claim="loss", protocol="paper, tuned", ci_bound="estimate")
    before, after = PAPER_CHAIN[0].before, PAPER_CHAIN[-1].after
    assert (before, after) == ("hessian_truncated", "kfac_split_mc1_pi")
    np.testing.assert_allclose(loss, (0.5 - 0.4) / (0.8 - 0.1), rtol=1e-6)
    steps = json.loads(claims.attrs["chains"])["paper, "]
    assert steps == [step.name for step in PAPER_CHAIN]


def test_without_its_rungs_there_is_no_ladder() -> None:
    groups = together([scored(DESCENT)], "epoch")
    assert "/protocol_ladder" not in groups
    assert "/trends" not in groups
    assert groups["/claims"]["protocol"].values.tolist() == ["equal", "tuned"]


def test_a_study_can_be_written_and_read(groups: dict[str, xr.Dataset], tmp_path: Path) -> None:
    whole = xr.DataTree.from_dict(groups)
    write_tree(whole, tmp_path / "study.nc")
    with xr.open_datatree(tmp_path / "study.nc", engine="h5netcdf") as tree:
        xr.testing.assert_equal(tree.load(), whole)
