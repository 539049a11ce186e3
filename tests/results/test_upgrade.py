"""Results of schema 1 open as results of the present schema, number for number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.results import open_result
from decomposition.results.schema import GROUPS, SCHEMA_VERSION
from decomposition.results.upgrade import upgraded
from decomposition.results.validate import check_tree
from tests.results.synthetic import synthetic

STUDY = Path(__file__).parents[2] / "docs" / "study.nc"


@pytest.fixture(scope="module")
def old() -> xr.DataTree:
    with xr.open_datatree(STUDY, engine="h5netcdf") as opened:
        return opened.load()


@pytest.fixture(scope="module")
def new() -> xr.DataTree:
    return open_result(STUDY)


@pytest.mark.parametrize(
    ("before", "path", "after", "place"),
    [
        ("level", "shares", "level", {}),
        ("drop", "shares", "drop", {"metric": "lds"}),
        ("share", "shares", "share", {"metric": "lds"}),
        ("total", "shares", "total", {"metric": "lds"}),
        ("damping", "shares", "level_damping", {}),
        ("shapley", "shares/shapley", "shapley", {"metric": "lds"}),
        ("level_at", "shares/at_damping", "level", {}),
        ("drop_at", "shares/at_damping", "drop", {}),
        ("ceiling", "attribution", "ceiling", {}),
        ("reliability", "attribution", "reliability", {}),
        ("frobenius_error", "spectral_error", "value", {"metric": "relative_frobenius"}),
        ("inverse_error", "spectral_error", "misaligned_solutions", {}),
        ("query_accuracy", "cells", "query_accuracy", {}),
    ],
)
def test_every_number_of_a_study_has_its_place(
    before: str, path: str, after: str, place: dict[str, str], old: xr.DataTree, new: xr.DataTree
) -> None:
    wanted = (
        old["cells"]
        .to_dataset()[before]
        .rename({"chain_rung": "rung"} if before == "level_at" else {})
    )
    found = new[path].to_dataset()[after].sel(place, drop=True)
    found = found.sel({d: wanted[d].values for d in ("rung", "step") if d in wanted.dims})
    assert found.dims[0] == "cell"
    np.testing.assert_array_equal(found.transpose(*wanted.dims).values, wanted.values)


def test_shares_of_the_frobenius_error_stand_beside_those_of_the_lds(old, new) -> None:
    wanted = old["cells"]["frobenius_share"].values
    found = new["shares"]["share"].sel(metric="frobenius_squared")
    for protocol in found["protocol"].values:
        for bound in found["ci_bound"].values:
            here = found.sel(protocol=protocol, ci_bound=bound).values
            np.testing.assert_array_equal(here, wanted)


def test_a_study_of_schema_1_departs_nowhere_from_the_schema(new: xr.DataTree) -> None:
    check_tree(new, "docs/study.nc", strict=True)
    assert new.attrs["schema_version"] == SCHEMA_VERSION
    assert new["cells"]["label"].dims == ("cell",)
    assert "protocol_ladder" in new


def test_a_single_result_of_schema_1_has_its_forms(tmp_path: Path) -> None:
    tree = synthetic()
    tree.attrs["schema_version"] = 1
    tree["large"] = xr.DataTree(xr.Dataset({"form": ("rung", ["dense"])}, {"rung": ["ggn"]}))
    tree.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    found = open_result(tmp_path)
    assert found["forms"]["form"].item() == "dense"
    xr.testing.assert_identical(found["shares"].to_dataset(), tree["shares"].to_dataset())


def test_a_result_of_the_present_schema_is_left_as_it_is() -> None:
    tree = synthetic()
    assert upgraded(tree) is tree


def test_no_group_names_a_variable_twice() -> None:
    for group in GROUPS:
        names = [variable.name for variable in group.variables]
        assert len(names) == len(set(names)), group.path
