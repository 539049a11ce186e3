"""Scores made elsewhere: on the bench beside the rungs, and refused with the way out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import spearmanr

from decomposition import DecompositionError, Settings, build_chain, influence_scores, run
from decomposition.chain import CHAIN
from decomposition.curvature import ScaledIdentity
from decomposition.problem import Problem
from decomposition.scores.elsewhere import given_scores, read_named, read_scores
from tests.tiny import tiny_problem

SETTINGS = Settings(
    masks=24, second_order_masks=8, resamples=200, damping_points=4, lattice=False, also="diagonal"
)
DAMPING = 0.05


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem()


@pytest.fixture(scope="module")
def kfac(problem: Problem) -> np.ndarray:
    return influence_scores(problem, build_chain(problem)["kfac"], DAMPING).numpy()


@pytest.fixture(scope="module")
def result(problem: Problem, kfac: np.ndarray, tmp_path_factory) -> tuple[xr.DataTree, Path]:
    folder = tmp_path_factory.mktemp("given")
    plain = ScaledIdentity(problem.num_parameters, 1.0)
    identity = influence_scores(problem, plain, 1.0).numpy()
    given = {"theirs": kfac, "scaled": 1e-30 * kfac, "turned": -kfac, "products": identity}
    return run(problem, folder, scores=given, settings=SETTINGS, progress=False), folder


def test_their_lds_is_that_of_its_definition(result, problem: Problem, kfac: np.ndarray) -> None:
    """SciPy's Spearman over masks of the retrained models' losses and −Σ τ, mean over queries."""
    bank, labels = result[0]["bank"], problem.query[1].numpy()
    outputs = bank["outputs"].values[:, 0].astype(float)  # (masks, queries, classes)
    losses = logsumexp(outputs, axis=-1) - outputs[:, np.arange(len(labels)), labels]
    predicted = -bank["masks"].values.astype(float) @ kfac.T
    expected = [spearmanr(*pair).statistic for pair in zip(predicted.T, losses.T, strict=True)]
    curve = result[0]["attribution"]["lds_mean"].sel(rung="theirs", ci_bound="estimate")
    np.testing.assert_allclose(curve, np.mean(expected), atol=1e-6)


def test_they_have_no_damping(result) -> None:
    tree = result[0]
    assert bool(tree["attribution"]["best_damping"].sel(rung="theirs").isnull())
    assert bool(tree["levels"]["damping"].sel(rung="theirs").isnull().all())


def test_only_ranks_within_a_query_count(result) -> None:
    lds = result[0]["attribution"]["lds_mean"]
    np.testing.assert_array_equal(lds.sel(rung="scaled"), lds.sel(rung="theirs"))


def test_products_of_gradients_are_the_baseline(result) -> None:
    lds = result[0]["attribution"]["lds_mean"]
    np.testing.assert_allclose(lds.sel(rung="products"), lds.sel(rung="identity"), atol=1e-6)


def test_the_other_sign_is_asked_about(result) -> None:
    notes = result[0].attrs["notes"]
    assert "scores 'turned' rank the examples against those of identity" in notes
    assert "scores 'theirs'" not in notes
    lds = result[0]["attribution"]["lds"]
    np.testing.assert_allclose(lds.sel(rung="turned"), -lds.sel(rung="theirs"), atol=1e-6)


def test_differences_to_every_rung_have_intervals_and_probabilities(result) -> None:
    beside = result[0]["beside"]
    assert list(beside["other"].values) == ["diagonal", "theirs", "scaled", "turned", "products"]
    level = result[0]["shares"]["level"].sel(ci_bound="estimate")
    for rung in CHAIN:
        gap = beside["difference"].sel(other="theirs", rung=rung)
        expected = level.sel(rung="theirs") - level.sel(rung=rung)
        np.testing.assert_allclose(gap.sel(ci_bound="estimate"), expected, atol=1e-6)
        assert bool((gap.sel(ci_bound="lower") <= gap.sel(ci_bound="upper")).all())
    probability = beside["probability"].sel(other=["theirs", "turned"])
    assert bool(((probability >= 0) & (probability <= 1)).all())


def test_agreement_with_h_is_there(result) -> None:
    agreement = result[0]["attribution"]["agreement"].sel(rung="theirs")
    assert bool(agreement.notnull().any())


def test_the_page_has_them(result) -> None:
    assert "theirs" in (result[1] / "report.html").read_text()


WRONG = {
    "shape": (lambda s: s[:-1], r"not \(queries, train\)"),
    "transposed": (lambda s: s.T, r"pass their \.T"),
    "NaN": (lambda s: np.where(s == s[1, 2], np.nan, s), "nan at query 1, training example 2"),
    "infinity": (lambda s: np.where(s == s[1, 2], np.inf, s), "inf at query 1"),
    "constant": (lambda s: np.where(np.arange(len(s))[:, None] == 3, 1.0, s), "constant for query"),
    "text": (lambda s: "scores", "theirs"),
    "complex": (lambda s: s + 1j, "theirs"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_is_no_scores_is_refused(what: str, problem: Problem, kfac: np.ndarray) -> None:
    change, said = WRONG[what]
    with pytest.raises(DecompositionError, match=said):
        given_scores({"theirs": change(kfac)}, problem, SETTINGS)


@pytest.mark.parametrize("name", ["kfac", "identity", "diagonal", "", 3])
def test_names_that_are_taken_or_none_are_refused(name, problem: Problem, kfac) -> None:
    with pytest.raises(DecompositionError, match="name"):
        given_scores({name: kfac}, problem, SETTINGS, ["diagonal"])


def test_several_base_models_and_runs_without_truth_are_refused(problem: Problem, kfac) -> None:
    for settings in (replace(SETTINGS, base_seeds=2), replace(SETTINGS, attribution=False)):
        with pytest.raises(DecompositionError, match="made elsewhere"):
            given_scores({"theirs": kfac}, problem, settings)


def test_every_format_is_read(tmp_path: Path, kfac: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", kfac)
    np.savez(tmp_path / "b.npz", scores=kfac, other=kfac[0])
    array = xr.DataArray(kfac.T, dims=("train", "query"), name="tau")
    array.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    for name in ("a.npy", "b.npz", "c.nc"):
        np.testing.assert_array_equal(read_scores(tmp_path / name), kfac)
    assert list(read_named([f"x={tmp_path / 'a.npy'}"])) == ["x"]


def test_safetensors_are_read_where_the_package_is(
    tmp_path: Path, kfac: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pairwise_scores.safetensors"
    path.write_bytes(b"\x00")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(DecompositionError, match="pip install safetensors"):
        read_scores(path)
    monkeypatch.undo()
    numpy_writer = pytest.importorskip("safetensors.numpy")
    numpy_writer.save_file({"all_modules": kfac.astype(np.float32)}, path)
    np.testing.assert_allclose(read_scores(path), kfac, rtol=1e-6)


def test_files_that_hold_no_scores_are_named(tmp_path: Path, kfac: np.ndarray) -> None:
    np.savez(tmp_path / "two.npz", one=kfac, two=kfac)
    (tmp_path / "broken.npy").write_bytes(b"no array")
    for name, said in {
        "two.npz": "call the scores `scores`",
        "broken.npy": "cannot read scores",
        "none.npy": "no file",
        "scores.csv": "use .npy",
    }.items():
        with pytest.raises(DecompositionError, match=said):
            read_scores(tmp_path / name)
    for argument in ("theirs", "=a.npy", "theirs="):
        with pytest.raises(DecompositionError, match="name=FILE"):
            read_named([argument])
