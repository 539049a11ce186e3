"""Several results as the cells of one: every number where it was, and nothing of another cell."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from decomposition.results.schema import group_of
from decomposition.results.stack import stack
from decomposition.results.validate import check_tree
from tests.report.synthetic_study import PlantedStudy, synthetic_study
from tests.results.synthetic import Planted, synthetic

FIRST = Planted(problem="first", extra=("mine",))
SECOND = Planted(problem="second", blocks=("0", "other"), seed=3)


@pytest.fixture(scope="module")
def both() -> tuple[list[xr.DataTree], xr.DataTree]:
    trees = [synthetic(FIRST), synthetic(SECOND)]
    trees[1]["shares"].attrs["verdict"] = json.dumps({"equal": {"candidate": "eigenbasis"}})
    return trees, stack(trees)


def test_every_number_is_in_its_cell(both: tuple[list[xr.DataTree], xr.DataTree]) -> None:
    trees, stacked = both
    for number, tree in enumerate(trees):
        for node in tree.subtree:
            group = group_of(node.path)
            if group is None or not group.stacked or not node.data_vars:
                continue
            for name, array in node.to_dataset().data_vars.items():
                found = stacked[node.path][name].sel(cell=number, drop=True)
                place = {dim: array[dim].values for dim in array.dims}
                np.testing.assert_array_equal(found.sel(place).values, array.values, str(name))


def test_what_one_result_lacks_is_unknown_in_its_cell(both) -> None:
    _, stacked = both
    mine = stacked["spectrum"]["eigenvalues"].sel(rung="mine")
    assert np.isfinite(mine.sel(cell=0)).all()
    assert np.isnan(mine.sel(cell=1)).all()
    assert np.isnan(stacked["spectrum/other"]["eigenvalues"].sel(cell=0)).all()


def test_cells_have_names_sizes_and_their_own_verdicts(both) -> None:
    _, stacked = both
    assert stacked["cells"]["label"].values.tolist() == ["first", "second"]
    assert stacked["cells"]["parameters"].values.tolist() == [6570, 6570]
    verdicts = json.loads(stacked["shares"].attrs["verdict"])
    assert verdicts == {"0": {}, "1": {"equal": {"candidate": "eigenbasis"}}}
    check_tree(stacked, "both", strict=True)


def test_equal_names_are_numbered_and_a_study_brings_its_cells() -> None:
    study = synthetic_study(PlantedStudy(hidden=("16",), epochs=(10, 100)))
    stacked = stack([study, synthetic(FIRST), synthetic(FIRST)])
    names = stacked["cells"]["label"].values.tolist()
    assert names[2:] == ["first (3)", "first (4)"]
    assert len(names) == len(set(names)) == 4
    assert "claims" not in stacked
