"""`decompose spectrum` from a problem and from a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition import Settings, open_result, run
from decomposition.device import DeviceError
from decomposition.errors import DecompositionError
from decomposition.spectrum.command import (
    Inspection,
    default_folder,
    figures,
    inspect_spectra,
)
from decomposition.spectrum.inspect import inspect_problem, inspect_result
from tests.cases import tanh

EXAMPLE = "from tests.cases import tanh\n\n\ndef make():\n    return tanh()\n"


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE)
    return f"{path}:make"


def test_a_problem_gives_values_tables_and_figures(source: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tree = inspect_spectra(source, out, Inspection(blocks=("0",), checkpoints=(0, 1)))
    with xr.open_datatree(out / "spectrum.nc", engine="h5netcdf") as read:
        np.testing.assert_array_equal(
            read["spectrum"]["eigenvalues"].values, tree["spectrum"]["eigenvalues"].values
        )
    drawn = {path.stem for path in (out / "figures").glob("*.svg")}
    assert drawn == {path.stem for path in (out / "figures").glob("*.png")}
    wanted = {"eigenvalues_whole", "density_block_0", "mismatch_parts", "overlap", "weyl"}
    assert wanted | {"training", "score_error", "davis_kahan"} <= drawn
    table = (out / "tables" / "spectrum.csv").read_text().splitlines()
    assert table[0] == "scope,rung,index,eigenvalues"


def test_a_result_gives_the_same_eigenvalues_as_its_problem(tmp_path: Path) -> None:
    problem = tanh().trained()
    result = tmp_path / "result"
    run(problem, result, settings=Settings(attribution=False), progress=False)
    tree = inspect_result(open_result(result))
    direct = inspect_problem(problem)["spectrum"]["eigenvalues"]
    found = tree["spectrum"]["eigenvalues"].sel(rung=direct["rung"].values)
    np.testing.assert_allclose(found, direct, atol=1e-12)
    assert "mismatch" in tree.children
    assert "overlap" not in tree.children


def test_the_estimated_sections_draw_like_the_dense_ones() -> None:
    choice = Inspection(method="estimate", probes=2, steps=10)
    rungs, problem = ["hessian", "ggn", "kfac"], tanh()
    tree = inspect_problem(problem, rungs, plan=choice.plan(problem), estimation=choice.estimation)
    names = [name for name, _ in figures(tree)]
    assert "density_whole" in names
    assert "effective_dimension_block_0" in names
    assert str(tree["spectrum"]["method"].sel(scope="whole", rung="hessian").values) == "lanczos"
    assert "overlap" not in tree.children


def test_a_chosen_rung_and_block_are_all_there_is() -> None:
    tree = inspect_problem(tanh(), rungs=["kfac"], blocks=["2"])
    assert list(tree["spectrum"]["rung"].values) == ["kfac"]
    assert list(tree["spectrum"]["scope"].values) == ["whole", "2"]


def test_a_result_is_inspected_into_a_folder_beside_it() -> None:
    assert default_folder("out/result.nc") == Path("out/spectrum")
    assert default_folder("digits") == Path("spectrum")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Inspection(rungs=("hesian",)), "no rung 'hesian'"),
        (Inspection(blocks=("9",)), "no block '9': the blocks are 0, 2, 4"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(
    source: str, tmp_path: Path, choice: Inspection, message: str
) -> None:
    with pytest.raises(DecompositionError, match=message):
        inspect_spectra(source, tmp_path / "out", choice)


def test_a_device_that_is_not_there_is_refused_before_any_work(source: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"device cuda:99 is not available"):
        inspect_spectra(source, tmp_path / "out", Inspection(device="cuda:99"))
    assert not (tmp_path / "out" / "spectrum.nc").exists()
    with pytest.raises(DeviceError, match="unknown device 'gpu'"):
        Inspection(device="gpu")


def test_the_file_tells_where_it_was_made(source: str, tmp_path: Path) -> None:
    tree = inspect_spectra(source, tmp_path, Inspection(rungs=("kfac",), blocks=("0",)))
    assert tree.attrs["device"] == "cpu"
