"""Every preset, run as its docstring says, at a tiny size: one result and one report each."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.scores.protocols import PROTOCOLS

ANALYSES = Path(__file__).parents[2] / "analyses"
SMALL = ["--dataset", "wine", "--hidden", "4"]
PRESETS = {
    "paper_grid": ["--depths", "1", "--widths", "4", "--epochs", "1", "2"],
    "training_time": SMALL,
    "width": ["--dataset", "wine", "--widths", "2", "4"],
    "depth": ["--dataset", "wine", "--width", "4"],
    "damping": SMALL,
    "dataset_size": [*SMALL, "--examples", "60", "120"],
    "label_noise": SMALL,
    "subset_fraction": SMALL,
    "damping_rules": ["--datasets", "wine", "--hidden", "4", "--rules", "layer_mean,fixed"],
    "controlled_protocol": SMALL,
    "paper_protocol": SMALL,
}


def run(preset: str, out: Path, *options: str) -> xr.DataTree:
    """Run a preset's file as a script, in this process."""
    arguments = ["--tiny", "--backend", "sequential", "--out", str(out), *options]
    before = sys.argv
    sys.argv = [f"{preset}.py", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ANALYSES / f"{preset}.py"), run_name="__main__")
    finally:
        sys.argv = before
    assert ended.value.code == 0
    with xr.open_datatree(out / "study.nc", engine="h5netcdf") as tree:
        return tree.load()


def test_every_preset_is_tried() -> None:
    files = {path.stem for path in ANALYSES.glob("*.py")}
    assert files - {"eigen_spectra", "any_model", "gpt2", "libraries"} == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leaves_one_result_and_one_report(preset: str, tmp_path: Path) -> None:
    tree = run(preset, tmp_path, *PRESETS[preset])
    cells, shares = tree["cells"].to_dataset(), tree["shares"].to_dataset()
    assert np.isfinite(shares["level"].sel(rung="hessian")).all()
    exact = shares["share"].sel(metric="frobenius_squared", ci_bound="estimate")
    np.testing.assert_allclose(exact.sum("step"), 1.0)
    solutions = tree["spectral_error"]["misaligned_solutions"].sel(protocol=list(PROTOCOLS))
    assert np.isfinite(solutions.sel(rung="kfac")).all()
    assert tree["claims"].to_dataset().sizes["cell"] == cells.sizes["cell"]
    assert (cells.sizes["cell"] > 1) == (preset != "damping")
    assert "trends" in tree.children
    assert ("protocol_ladder" in tree.children) == (preset in ("paper_grid", "paper_protocol"))
    assert "claim" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("target", ["margin", "leave_one_out", "pbrf"])
def test_a_preset_serves_every_target(target: str, tmp_path: Path) -> None:
    tree = run("damping", tmp_path, *SMALL, "--target", target)
    assert set(tree["cells"]["target"].values) == {target}


def test_a_study_again_computes_nothing(tmp_path: Path) -> None:
    first = run("damping", tmp_path, *SMALL)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    second = run("damping", tmp_path, *SMALL)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()} == stamps
    for path in ("cells", "shares"):
        xr.testing.assert_identical(first[path].to_dataset(), second[path].to_dataset())
