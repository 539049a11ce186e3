"""The whole study of tiny problems: complete, documented, repeatable, the same when reopened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from decomposition import (
    DecompositionError,
    Problem,
    Recipe,
    Settings,
    build_chain,
    open_result,
    run,
)
from decomposition.chain import CHAIN, LATTICE
from decomposition.curvature import EigenpairCurvature, SolveCurvature
from decomposition.problems.networks import mlp
from decomposition.results.validate import check_tree
from decomposition.spectrum.residuals import RESIDUALS
from decomposition.targets.functions import MEASURES

TINY = Settings(masks=20, second_order_masks=6, resamples=100, damping_points=5)
VARYING = {"created_at", "timings"}
GROUPS = {"/spectrum", "/spectral_error", "/attribution", "/bank", "/shares", "/shares/shapley"}


def tiny(regression: bool = False) -> Problem:
    """P = 26 or so, 30 training examples."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(36, 3, generator=generator)
    noise = torch.randn(36, 2, generator=generator)
    y = x[:, :2].sin() + 0.3 * noise if regression else (x[:, 0] + noise[:, 0] > 0).long()
    return Problem(
        mlp((3, 4, 2), nn.Tanh, 0),
        nn.MSELoss() if regression else nn.CrossEntropyLoss(),
        (x[:30], y[:30]),
        (x[30:], y[30:]),
        recipe=Recipe(epochs=5, batch_size=8, lr=0.1),
        name="tiny",
    )


def top_eigenpairs(problem: Problem) -> EigenpairCurvature:
    mu, v = torch.linalg.eigh(build_chain(problem)["ggn"].dense())
    return EigenpairCurvature(mu[-5:], v[:, -5:])


def same(one: xr.DataTree, other: xr.DataTree) -> None:
    """Bit for bit, but for when it was made."""
    assert {n.path for n in one.subtree} == {n.path for n in other.subtree}
    for node in one.subtree:
        xr.testing.assert_identical(
            node.to_dataset(inherit=False).drop_attrs(),
            other[node.path].to_dataset(inherit=False).drop_attrs(),
        )
    for name in set(one.attrs) | set(other.attrs):
        if name not in VARYING:
            assert one.attrs[name] == other.attrs[name], name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def result(folder: Path) -> xr.DataTree:
    return run(tiny(), folder, extra={"top5": top_eigenpairs}, settings=TINY, progress=False)


def test_everything_is_there_and_documented(result: xr.DataTree, folder: Path) -> None:
    check_tree(result, "the result", strict=True)
    assert {node.path for node in result.subtree} >= GROUPS
    assert (folder / "result.nc").is_file()
    assert "tiny" in (folder / "report.html").read_text()


def test_the_returned_tree_is_the_written_one(result: xr.DataTree, folder: Path) -> None:
    same(open_result(folder), result)


def test_a_rung_of_ones_own_is_scored_beside_the_chain(result: xr.DataTree) -> None:
    for path in ("/spectrum", "/spectral_error", "/attribution"):
        rungs = result[path]["rung"].values.tolist()
        assert set(rungs) >= {*LATTICE, "top5"}, path
    assert bool(result["/attribution"]["lds"].sel(rung="top5").notnull().all())
    eigenvalues = result["/spectrum"]["eigenvalues"].sel(rung="top5")
    assert int((eigenvalues != 0).sum()) == 5


def test_sizes_and_configuration_are_recorded(result: xr.DataTree) -> None:
    assert (result.attrs["parameters"], result.attrs["examples"], result.attrs["queries"]) == (
        26,
        30,
        6,
    )
    config = json.loads(result.attrs["config"])
    assert config["settings"]["masks"] == 20
    assert config["recipe"]["epochs"] == 5
    assert result["/bank"]["masks"].shape == (20, 30)
    assert bool((result["/bank"]["masks"].sum("train") == 15).all())


def test_every_number_that_should_exist_does(result: xr.DataTree) -> None:
    lds = result["/attribution"]["lds_mean"]
    assert bool(((lds >= -1) & (lds <= 1)).all())
    eigenvalues = result["/spectrum"]["eigenvalues"]
    assert bool(eigenvalues.notnull().all())
    assert bool((eigenvalues.diff("index") >= 0).all())
    value = result["/spectral_error"]["value"].sel(rung=list(CHAIN))
    assert bool(value.notnull().all())


def test_intervals_contain_their_estimates(result: xr.DataTree) -> None:
    for name in ("drop", "share"):
        table = result["/shares"][name].dropna("metric", how="all")
        low, middle, high = (table.isel(ci_bound=i).values for i in range(3))
        known = ~np.isnan(low)
        assert (low[known] <= high[known]).all()
        assert (low[known] <= middle[known] + 1e-12).mean() > 0.9
    drop = result["/shares"]["drop"].sel(metric="lds").isel(ci_bound=1)
    total = result["/shares"]["total"].sel(metric="lds").isel(ci_bound=1)
    np.testing.assert_allclose(drop.sum("step"), total, atol=1e-10)


def test_the_same_seed_gives_the_same_bits(result: xr.DataTree, tmp_path: Path) -> None:
    again = run(tiny(), tmp_path, extra={"top5": top_eigenpairs}, settings=TINY, progress=False)
    same(again, result)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 (the global state must not matter)
    in_memory = run(tiny(), extra={"top5": top_eigenpairs}, settings=TINY, progress=False)
    same(in_memory, result)


def test_another_seed_gives_other_masks(result: xr.DataTree) -> None:
    settings = Settings(
        masks=20, second_order_masks=0, resamples=100, damping_points=5, lattice=False, seed=1
    )
    other = run(tiny(), settings=settings, progress=False)
    assert bool((other["/bank"]["masks"] != result["/bank"]["masks"]).any())


def test_without_attribution_the_spectra_remain() -> None:
    settings = Settings(attribution=False)
    tree = run(tiny(), settings=settings, progress=False)
    check_tree(tree, "the result", strict=True)
    paths = {node.path for node in tree.subtree}
    assert paths >= {"/spectrum", "/spectral_error", "/shares"}
    assert not paths & {"/attribution", "/bank"}


def test_a_regression_problem(tmp_path: Path) -> None:
    tree = run(tiny(regression=True), tmp_path, settings=TINY, progress=False)
    check_tree(tree, "the result", strict=True)
    same(open_result(tmp_path), tree)
    assert json.loads(tree.attrs["config"])["loss"] == "mse"
    assert bool(tree["/attribution"]["lds"].sel(rung="hessian").notnull().all())


def test_independent_randomness_with_repeats() -> None:
    settings = Settings(
        masks=20, repeats=2, randomness="independent", resamples=100, damping_points=5,
        lattice=False,
    )  # fmt: skip
    tree = run(tiny(), settings=settings, progress=False)
    check_tree(tree, "the result", strict=True)
    assert tree["/bank"]["outputs"].sizes["repeat"] == 2


@pytest.mark.parametrize(("target", "masks"), [("margin", 20), ("leave_one_out", 12), ("pbrf", 12)])
def test_every_target_has_levels_shares_and_a_ceiling(
    target: str, masks: int, tmp_path: Path
) -> None:
    settings = replace(
        TINY, target=target, leave_one_out_examples=12, matrix_norms=False, lattice=False
    )  # fmt: skip
    tree = run(tiny(), tmp_path, settings=settings, progress=False)
    check_tree(tree, "the result", strict=True)
    same(open_result(tmp_path), tree)
    found = tree["/attribution"]
    assert found.attrs["target"] == target
    assert found.attrs["measure"] == MEASURES[target]
    assert json.loads(tree.attrs["config"])["settings"]["target"] == target
    assert tree["/bank"]["masks"].shape == (masks, 30)
    assert bool(found["lds_mean"].notnull().all())
    assert bool(tree["/shares"]["drop"].sel(metric="lds").dropna("step").notnull().all())
    assert float(found["ceiling"].sel(ci_bound="estimate")) <= 1.0
    if target != "margin":
        assert target in " ".join(json.loads(tree.attrs["notes"]))
    if target == "pbrf":
        assert float(found["ceiling"].sel(ci_bound="lower")) == pytest.approx(1.0)
        assert float(found["lds_mean"].sel(rung="ggn", ci_bound="estimate").max()) > 0.95


def test_with_one_repeat_the_margin_orders_models_as_the_loss_does(result: xr.DataTree) -> None:
    """m = −log(exp ℓ − 1) for every model and ∇m ∝ −∇ℓ for every query: no rank changes."""
    tree = run(tiny(), settings=replace(TINY, target="margin"), progress=False)
    for name, tolerance in (("lds", 1e-12), ("ceiling", 1e-12)):
        expected = result["/attribution"][name]
        actual = tree["/attribution"][name]
        if "rung" in expected.dims:
            rungs = ["hessian", "ggn", "ekfac", "kfac", "identity"]
            expected, actual = expected.sel(rung=rungs), actual.sel(rung=rungs)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def test_a_rung_known_by_its_solver_alone_is_scored_but_has_no_spectrum(tmp_path: Path) -> None:
    def solver(problem: Problem) -> SolveCurvature:
        ggn = build_chain(problem)["ggn"]
        return SolveCurvature(ggn.size, lambda v, damping: ggn.solve(v, damping))

    tree = run(tiny(), tmp_path, extra={"mine": solver}, settings=TINY, progress=False)
    check_tree(tree, "the result", strict=True)
    lds = tree["/attribution"]["lds"]
    np.testing.assert_allclose(lds.sel(rung="mine"), lds.sel(rung="ggn"), atol=0.02)
    known = tree["/spectral_error"]["value"].sel(rung="mine").dropna("metric")["metric"]
    assert set(known.values) == set(RESIDUALS)  # of its inverse, which is what a solver gives
    assert "mine" not in tree["/spectrum"]["rung"].values
    assert "mine" in (tmp_path / "report.html").read_text()


def test_a_trained_problem_is_not_trained_again() -> None:
    trained = tiny().trained()
    theta = trained.theta()
    settings = Settings(attribution=False, lattice=False)
    tree = run(trained, settings=settings, progress=False)
    expected = build_chain(trained)["hessian"].eigenvalues()
    found = tree["/spectrum"]["eigenvalues"].sel(rung="hessian")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert bool((trained.theta() == theta).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": 1}, "masks must be a whole number >= 2, got 1"),
        ({"masks": 0}, "got 0"),
        ({"alpha": 0.0}, r"Settings\.alpha must lie in \(0, 1\), got 0.0"),
        ({"alpha": 1.0}, "got 1.0"),
        ({"alpha": float("nan")}, "got nan"),
        ({"repeats": 0}, "repeats must be"),
        ({"randomness": "both"}, "randomness must be"),
        ({"negative": "abs"}, "negative must be one of absolute, signed, clip, shift"),
        ({"damping_low": 0.0}, r"damping_low must lie in \(0, inf\), got 0.0"),
        ({"damping_low": 2.0, "damping_high": 1.0}, "0 < low < high"),
        ({"damping_points": 2}, "damping_points must be a whole number >= 3, got 2"),
        ({"resamples": 10}, "resamples must be a whole number >= 100"),
        ({"level": 1.0}, "level must lie in"),
        ({"seed": -1}, "seed must be"),
        ({"target": "trak"}, "target must be one of loss, margin, .*got 'trak'"),
        (
            {"leave_one_out_examples": 3},
            "leave_one_out_examples must be a whole number >= 6, got 3",
        ),
        ({"pbrf_damping": 0.0}, r"pbrf_damping must lie in \(0, inf\), got 0.0"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict, message: str) -> None:
    with pytest.raises(DecompositionError, match=message):
        Settings(**changes)


def test_a_subset_that_would_be_empty_is_named() -> None:
    with pytest.raises(DecompositionError, match="keeps none of the 30 training examples"):
        run(tiny(), settings=Settings(alpha=0.01, masks=20), progress=False)


def test_a_diverging_recipe_is_named() -> None:
    problem = tiny(regression=True)
    wild = Problem(
        problem.model, problem.loss, problem.train, problem.query,
        recipe=Recipe(lr=1e6, epochs=200, batch_size=1),
    )  # fmt: skip
    with pytest.raises(DecompositionError, match=r"diverged.*lr = 1000000.0; lower Recipe.lr"):
        run(wild, settings=TINY, progress=False)


def test_a_folder_that_is_a_file_is_named_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DecompositionError, match=r"cannot write .*taken"):
        run(tiny(), tmp_path / "taken", settings=TINY, progress=False)
