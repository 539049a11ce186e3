"""Where results go: a folder that is named, and no file of another program is lost there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition import Problem, cli, run
from decomposition.atomic import ABANDONED_AFTER, unfinished
from decomposition.errors import StoreError
from decomposition.report import write_report
from decomposition.results import open_result, write_result
from decomposition.results.write import check_writable
from decomposition.spectrum.command import inspect_spectra
from tests.cases import CASES
from tests.results.synthetic import Planted, synthetic

SMALL = Planted(rungs=("kfac",), bank=False, examples=False, blocks=())
PROBLEM = Path(__file__).parents[1] / "tiny_problem.py"


@pytest.fixture(scope="module")
def problem() -> Problem:
    return CASES["gelu"]()


def netcdf(path: Path) -> None:
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")


def array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.arange(3))


FOREIGN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "netCDF": ("result.nc", netcdf),
    "another format": ("result.nc", array),
    "folder": ("result.nc", Path.mkdir),
    "dead link": ("result.nc", lambda path: path.symlink_to("elsewhere")),
    "page": ("report.html", lambda path: path.write_text("<html>mine</html>")),
}


@pytest.mark.parametrize(("name", "make"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_program_is_not_overwritten(
    name: str, make: Callable[[Path], object], problem: Problem, tmp_path: Path
) -> None:
    make(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    words = f"{name} was not written by this package.*another folder.*or remove it"
    with pytest.raises(StoreError, match=words):
        run(problem, tmp_path, progress=False)
    with pytest.raises(StoreError, match=words):
        write_report(write_result(synthetic(SMALL), tmp_path), tmp_path)
    if name == "result.nc":
        assert sorted(tmp_path.rglob("*")) == before


def test_a_spectrum_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    netcdf(tmp_path / "spectrum.nc")
    with pytest.raises(StoreError, match=r"spectrum.nc was not written by this package"):
        inspect_spectra("no problem", tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_our_own_is_replaced_however_short_it_was_cut(share: float, tmp_path: Path) -> None:
    path = write_result(synthetic(SMALL), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    write_report(write_result(synthetic(SMALL), tmp_path), tmp_path)
    assert write_report(path, tmp_path).is_file()
    assert open_result(path).attrs["problem"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", f"{PROBLEM}:make"],
        ["spectrum", f"{PROBLEM}:make"],
        ["report", "absent.nc"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_name_is_not_the_current_folder(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["decompose", *arguments, "--out", ""])
    with pytest.raises(SystemExit):
        cli.main()
    message = capsys.readouterr().err
    assert (
        "name of the output folder is empty: name one (--out results/), or say --out ." in message
    )
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_can_be_said(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="name of the output folder is empty"):
        run(problem, "", progress=False)
    write_result(synthetic(SMALL), tmp_path)
    monkeypatch.setattr(sys, "argv", ["decompose", "report", "result.nc", "--out", "."])
    cli.main()
    assert (tmp_path / "report.html").is_file()


def test_a_file_is_no_folder(problem: Problem, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(StoreError, match=f"cannot write to {file}: it is no folder; name another"):
        run(problem, file, progress=False)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("write", [check_writable, lambda out: write_result(synthetic(SMALL), out)])
def test_what_killed_processes_left_goes_and_nothing_else(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    result, page = unfinished(tmp_path / "result.nc"), unfinished(tmp_path / "report.html")
    fresh = unfinished(tmp_path / "report.html")
    others = [tmp_path / name for name in (".probe", "a.partial", ".b-0123456789abcdef.partial")]
    for path in (result, page, fresh, *others):
        path.write_text("half")
    for path in (result, page, *others):
        os.utime(path, (0, fresh.stat().st_mtime - 2 * ABANDONED_AFTER))
    write(tmp_path)
    assert set(tmp_path.iterdir()) - {tmp_path / "result.nc"} == {fresh, *others}
