"""Every preset, run as its docstring says, at a tiny size: one result and one report each."""

from __future__ import annotations

import json
import re
import runpy
import sys
from dataclasses import make_dataclass
from pathlib import Path

import numpy as np
import pytest
import tyro
import xarray as xr

from decomposition import Settings
from decomposition.scores.protocols import PROTOCOLS
from decomposition.study import Scale

ANALYSES = Path(__file__).parents[2] / "analyses"
SMALL = ["--dataset", "wine", "--hidden", "4"]
PRESETS = {
    "paper_grid": ["--depths", "1", "--widths", "4", "--epochs", "1", "2"],
    "training_time": SMALL,
    "width": ["--dataset", "wine", "--widths", "2", "4"],
    "depth": ["--dataset", "wine", "--width", "4"],
    "damping": SMALL,
    "inversion": [*SMALL, "--epochs", "1", "2", "--inversions", "damped", "per_layer"],
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
    assert files - {"eigen_spectra", "any_model", "gpt2", "libraries", "choices"} == set(PRESETS)


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


GRID = ["--depths", "1", "--widths", "4", "--epochs", "1"]


def config(tree: xr.DataTree) -> list[dict]:
    return json.loads(tree.attrs["config"])["cells"]


def test_retraining_as_published_is_said_in_every_cell(tmp_path: Path) -> None:
    tree = run("paper_grid", tmp_path, *GRID, "--as-published", "--alphas", "0.5", "0.7")
    about, cells = tree["cells"].to_dataset(), config(tree)
    assert about["alpha"].values.tolist() == [0.5, 0.5, 0.7, 0.7]
    assert about["momentum"].values.tolist() == [0.0, 0.9, 0.0, 0.9]
    assert {cell["settings"]["randomness"] for cell in cells} == {"independent"}
    assert all(cell["recipe"]["drop_last"] for cell in cells)
    rules = ["fixed:1e-4", "fixed:1e-2", "truncated:1e-4:1e-6", "pseudo_inverse:1e-4"]
    levels = tree["shares"]["level"].sel(rung="kfac", protocol=["layer_mean", *rules])
    assert np.isfinite(levels).all()
    assert "momentum 0.9" in (tmp_path / "report.html").read_text()


def grid(*options: str) -> Settings:
    """The settings of the first cell of the paper's grid, as its command line asks for them."""
    tools = runpy.run_path(str(ANALYSES / "paper_grid.py"))
    preset, scale = tyro.cli(
        make_dataclass("Both", [("preset", tools["PaperGrid"]), ("scale", Scale)]),
        args=options,
        config=(tyro.conf.OmitArgPrefixes,),
    ).__dict__.values()
    scale = preset.scaled(scale, False)
    return preset.study(scale.settings(), scale.seeds, False).cells[0].settings


def test_what_is_published_gives_way_to_what_is_said() -> None:
    published = grid("--as-published")
    assert (published.masks, published.repeats, published.randomness) == (100, 10, "independent")
    said = grid("--as-published", "--masks", "30", "--repeats", "4", "--randomness", "shared")
    assert (said.masks, said.repeats, said.randomness) == (30, 4, "shared")
    assert grid("--as-published", "--alpha", "0.7").alpha == 0.7
    assert (grid().masks, grid().repeats, grid().randomness) == (1000, 1, "shared")


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("paper_grid", ["--alpha", ".5", "--alphas", ".3", ".5"], "--alpha 0.5 and --alphas 0.3"),
        ("subset_fraction", ["--alpha", ".7"], "--alpha 0.7: .* give --alphas"),
        ("paper_grid", ["--masks", "0"], r"Settings\.masks must be a whole number >= 2, got 0"),
        ("paper_grid", ["--repeats", "0"], r"Settings\.repeats must be a whole number >= 1, got 0"),
    ],
)
def test_options_that_contradict_are_refused_by_name(
    preset: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(AssertionError):
        run(preset, tmp_path, *options)
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
