"""Bytes flipped in a result: the same content is read, or the damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from decomposition.errors import ResultFileError
from decomposition.results import open_result, write_result
from decomposition.results.digest import DIGEST, content_digest
from tests.results.synthetic import Planted, synthetic

SMALL = Planted(bank=False, examples=False, blocks=())
STUDY = Path(__file__).parents[2] / "docs" / "study.nc"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, bytes, str]:
    path = write_result(synthetic(SMALL), tmp_path_factory.mktemp("result"))
    return path, path.read_bytes(), content_digest(open_result(path))


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(max_examples=60)
def test_a_flipped_byte_changes_nothing_or_is_found(written, where: float, change: int) -> None:
    path, whole, digest = written
    content = bytearray(whole)
    content[int(where * len(content))] ^= change
    path.write_bytes(content)
    try:
        found = open_result(path)
    except ResultFileError:
        return
    assert content_digest(found) == digest


def test_another_eigenvalue_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = write_result(synthetic(SMALL), tmp_path)
    with h5py.File(path, "r+") as file:
        file["spectrum/eigenvalues"][0, 0] = 7.0
    with pytest.raises(ResultFileError, match=f"changed it on purpose, delete .* {DIGEST}"):
        open_result(path)
    h5py.File(path, "r+").attrs.pop(DIGEST)
    assert open_result(path)["spectrum"]["eigenvalues"].values[0, 0] == 7.0


def test_what_was_opened_changed_and_saved_opens_again(tmp_path: Path) -> None:
    tree = open_result(write_result(synthetic(SMALL), tmp_path))
    tree["spectrum"]["eigenvalues"].values[0, 0] = 7.0
    tree.to_netcdf(tmp_path / "changed.nc", engine="h5netcdf")
    assert open_result(tmp_path / "changed.nc")["spectrum"]["eigenvalues"].values[0, 0] == 7.0


def test_the_digest_holds_for_a_copy_and_xarray_reads_the_file(tmp_path: Path) -> None:
    path = write_result(synthetic(SMALL), tmp_path)
    copy = tmp_path / "copy.nc"
    copy.write_bytes(path.read_bytes())
    xr.testing.assert_identical(open_result(copy), open_result(path))
    with xr.open_datatree(copy, engine="h5netcdf") as plain:
        assert plain.attrs[DIGEST] == content_digest(plain)


def test_a_study_without_a_digest_opens() -> None:
    assert DIGEST not in open_result(STUDY).attrs


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("config", json.dumps(None), "config is not a JSON string of one object: 'null'"),
        ("notes", json.dumps({"a": 1}), "notes is not a JSON string of one list of strings"),
        ("timings", 3.0, "timings is not a string: .*3.0"),
        ("problem", h5py.Empty("f4"), "problem is not a string"),
        ("parameters", "many", "parameters is not a number: 'many'"),
    ],
)
def test_attributes_of_another_type_are_named(name: str, value, message: str, tmp_path) -> None:
    path = write_result(synthetic(SMALL), tmp_path)
    with h5py.File(path, "r+") as file:
        del file.attrs[DIGEST]
        file.attrs[name] = value
    with pytest.raises(ResultFileError, match=message):
        open_result(path)


def test_a_null_space_is_named(tmp_path: Path) -> None:
    path = write_result(synthetic(SMALL), tmp_path)
    with h5py.File(path, "r+") as file:
        file["spectrum"].create_dataset("nothing", data=h5py.Empty("f8"))
    with pytest.raises(ResultFileError, match=r"spectrum/nothing has no values .*null space"):
        open_result(path)


def test_a_claim_beyond_the_size_of_the_file_is_refused_before_memory_is_taken(tmp_path) -> None:
    path = write_result(synthetic(SMALL), tmp_path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("rows", (10**13,), "f8", chunks=(1024,))
    with pytest.raises(ResultFileError, match=r"/rows claims 8e\+13 bytes, more than"):
        open_result(path)
