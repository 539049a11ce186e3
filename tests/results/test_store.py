"""What is written is read back; what is not a result is refused with its reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import xarray as xr

from decomposition.errors import ResultFileError, StoreError
from decomposition.results import open_result, write_result
from tests.results.synthetic import CHAIN, Planted, synthetic

SMALL = Planted(bank=False, examples=False, blocks=())
CASES = {
    "whole": Planted(),
    "no bank": Planted(bank=False, examples=False),
    "one rung": Planted(rungs=("kfac",), blocks=()),
    "undefined": Planted(undefined=True),
    "regression": Planted(regression=True, examples=False),
    "awkward names": Planted(extra=('<b>"x"\u202e',), blocks=('0.<script>"',)),
}


@pytest.mark.parametrize("planted", CASES.values(), ids=CASES.keys())
def test_reading_returns_what_was_written(planted: Planted, tmp_path: Path) -> None:
    tree = synthetic(planted)
    path = write_result(tree, tmp_path / "new" / "out")
    back = open_result(path.parent)
    assert path.name == "result.nc"
    assert back.attrs == tree.attrs
    xr.testing.assert_equal(back, tree)


def test_the_file_is_closed_after_reading(tmp_path: Path) -> None:
    path = write_result(synthetic(SMALL), tmp_path)
    tree = open_result(path)
    path.unlink()
    assert np.isfinite(tree["spectrum"].to_dataset()["eigenvalues"].values).all()


def test_writing_leaves_only_the_result(tmp_path: Path) -> None:
    write_result(synthetic(SMALL), tmp_path)
    write_result(synthetic(SMALL), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["result.nc"]


def _truncated(path: Path) -> None:
    whole = write_result(synthetic(SMALL), path.parent).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _foreign_netcdf(path: Path) -> None:
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")


def _with_version(version: int):
    def make(path: Path) -> None:
        tree = synthetic(SMALL)
        write_result(tree, path.parent)
        with h5netcdf.File(path, "a") as file:
            file.attrs["schema_version"] = version

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "decompose run PROBLEM"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("<html>"), "not a netCDF-4 file"),
        (_truncated, "truncated or damaged"),
        (_foreign_netcdf, "not a result of this package"),
        (_with_version(99), "upgrade"),
        (_with_version(0), "make it again with: decompose run digits"),
    ],
    ids=["missing", "empty", "text", "truncated", "foreign", "newer", "older"],
)
def test_reader_says_what_is_wrong(make, message: str, tmp_path: Path) -> None:
    make(tmp_path / "result.nc")
    with pytest.raises(ResultFileError, match=message):
        open_result(tmp_path)


def _drop_coordinate(tree: xr.DataTree) -> xr.DataTree:
    tree["spectrum"] = xr.DataTree(tree["spectrum"].to_dataset().drop_vars("index"))
    return tree


def _set_attr(name: str, value: object):
    def change(tree: xr.DataTree) -> xr.DataTree:
        tree.attrs[name] = value
        return tree

    return change


def _wrong_bounds(tree: xr.DataTree) -> xr.DataTree:
    data = tree["shares"].to_dataset().assign_coords(ci_bound=["low", "mid", "high"])
    tree["shares"] = xr.DataTree(data)
    return tree


def _unknown(tree: xr.DataTree) -> xr.DataTree:
    tree["mine"] = xr.DataTree(xr.Dataset({"a": ("x", [1.0])}, coords={"x": [0]}))
    return tree


def _wrong_dims(tree: xr.DataTree) -> xr.DataTree:
    tree["spectrum"] = xr.DataTree(tree["spectrum"].to_dataset().rename(index="rank"))
    return tree


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop_coordinate, "dimension index of /spectrum has no coordinate"),
        (_wrong_bounds, "ci_bound of /shares"),
        (_wrong_dims, r"has dimensions \(rung, rank\), not \(rung, index\)"),
        (_set_attr("config", "{"), "config is not a JSON string"),
        (_set_attr("quick", True), "quick of / is a bool"),
        (_unknown, "group /mine is not in results/schema"),
    ],
)
def test_writer_refuses_what_the_schema_does_not_say(change, message, tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match=message):
        write_result(change(synthetic(SMALL)), tmp_path)
    assert not (tmp_path / "result.nc").exists()


def test_reader_accepts_what_a_later_writer_adds(tmp_path: Path) -> None:
    tree = _unknown(synthetic(SMALL))
    tree.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    assert "mine" in open_result(tmp_path)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_result(synthetic(SMALL), tmp_path / "file" / "out")


def test_full_disk_keeps_the_earlier_result(tmp_path: Path) -> None:
    before = write_result(synthetic(Planted(seed=1)), tmp_path).read_bytes()
    script = (
        "import resource, sys\n"
        "from decomposition.errors import StoreError\n"
        "from decomposition.results import write_result\n"
        "from tests.results.synthetic import Planted, synthetic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n    write_result(synthetic(Planted()), sys.argv[1])\n"
        "except StoreError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "cannot write" in done.stdout, done.stderr
    assert (tmp_path / "result.nc").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["result.nc"]


def test_every_chain_rung_has_a_planted_level() -> None:
    assert set(synthetic()["shares"].to_dataset()["rung"].values) == set(CHAIN)
