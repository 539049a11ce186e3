"""The whole study of a model with padded positions, and what comes back from its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from decomposition import Problem, Recipe, Settings, open_result, run
from decomposition.chain import CHAIN
from decomposition.errors import ProblemError
from decomposition.results.validate import check_tree
from decomposition.retraining import read_bank
from decomposition.retraining.supplied import BankFileError

TINY = Settings(masks=20, second_order_masks=6, resamples=100, damping_points=5)
WORDS, LENGTH, PAD = 5, 4, 0


class NextToken(nn.Module):
    """What comes next, from this token and the mean of those up to it: (n, WORDS, LENGTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(WORDS, 3)
        self.out = nn.Linear(3, WORDS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.token(tokens)
        seen = h.cumsum(1) / torch.arange(1, LENGTH + 1, dtype=h.dtype)[:, None]
        return self.out(torch.tanh(h + seen)).transpose(1, 2)


def sentences() -> Problem:
    """36 sentences of 1 to 5 words, 30 of them to train on; the rest of a line is padding."""
    rng = np.random.default_rng(0)
    words = 1 + rng.permutation((WORDS - 1) ** 4)[:36][:, None] // 4 ** np.arange(4) % 4
    words = np.column_stack([words, 1 + rng.integers(0, 4, 36)])
    words[np.arange(LENGTH + 1) > rng.integers(1, LENGTH + 1, 36)[:, None]] = PAD
    words = np.unique(words, axis=0)
    words = torch.as_tensor(words[np.unique(words[:, :-1], axis=0, return_index=True)[1]])
    x, y = words[:, :-1], words[:, 1:]
    torch.manual_seed(0)
    return Problem(
        NextToken(),
        nn.CrossEntropyLoss(ignore_index=PAD),
        (x[:-5], y[:-5]),
        (x[-5:], y[-5:]),
        recipe=Recipe(epochs=5, batch_size=8, lr=0.1),
        name="sentences",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    with torch.random.fork_rng(devices=[]):
        run(sentences(), out=out, settings=TINY, progress=False)
    return out


@pytest.fixture(scope="module")
def result(folder: Path) -> xr.DataTree:
    return open_result(folder)


def test_every_group_is_there_and_every_rung_is_scored(result: xr.DataTree) -> None:
    check_tree(result, "the result", strict=True)
    scored = result["attribution"]["lds_mean"]
    assert set(CHAIN) <= set(scored.coords["rung"].values.tolist())
    assert bool(np.isfinite(scored.sel(rung=list(CHAIN))).any("damping").all())


def test_the_bank_has_an_output_for_every_class_and_position(result: xr.DataTree) -> None:
    bank, problem = result["bank"], sentences()
    assert bank["outputs"].sizes["output"] == WORDS * LENGTH == problem.num_outputs
    assert bank["targets"].dims == ("query", "position")
    np.testing.assert_array_equal(bank["targets"], problem.query[1])


def test_the_report_says_positions_and_padding(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "at 4 positions of an example" in page
    assert "positions have the ignored label 0" in page


def test_its_bank_is_the_truth_of_another_run(folder: Path, result: xr.DataTree) -> None:
    with torch.random.fork_rng(devices=[]):
        again = run(sentences(), settings=TINY, bank=folder / "result.nc", progress=False)
    for name in ("lds_mean", "ceiling"):
        if name in result["attribution"]:
            xr.testing.assert_allclose(again["attribution"][name], result["attribution"][name])


def test_outputs_of_a_bank_may_have_the_shape_of_the_models(
    folder: Path, result: xr.DataTree, tmp_path: Path
) -> None:
    bank = result["bank"]
    outputs, second = bank["outputs"].values, bank["second_outputs"].values
    shaped = {
        "masks": bank["masks"].values,
        "outputs": outputs.reshape(*outputs.shape[:3], WORDS, LENGTH),
        "second_outputs": second.reshape(*second.shape[:2], WORDS, LENGTH),
    }
    np.savez(tmp_path / "bank.npz", **shaped)
    with torch.random.fork_rng(devices=[]):
        problem = sentences()
    flat, found = (
        read_bank(folder / "result.nc", problem),
        read_bank(tmp_path / "bank.npz", problem),
    )
    np.testing.assert_array_equal(found.outputs, flat.outputs)
    np.testing.assert_array_equal(found.measurements(problem), flat.measurements(problem))
    np.savez(tmp_path / "wrong.npz", **{**shaped, "outputs": shaped["outputs"][..., 1:]})
    with pytest.raises(BankFileError, match=r"outputs must be \(M = 20, .* C = 20\)"):
        read_bank(tmp_path / "wrong.npz", problem)


def test_a_margin_is_refused_before_anything_runs() -> None:
    with torch.random.fork_rng(devices=[]):
        problem = sentences()
    with pytest.raises(ProblemError, match="one margin for each of its positions"):
        run(problem, settings=replace(TINY, target="margin"), progress=False)


@pytest.mark.parametrize("target", ["leave_one_out", "pbrf"])
def test_single_examples_are_removed_too(target: str) -> None:
    with torch.random.fork_rng(devices=[]):
        problem = sentences()
        found = run(
            problem,
            settings=replace(TINY, target=target, leave_one_out_examples=8),
            progress=False,
        )
    assert bool(np.isfinite(found["attribution"]["lds_mean"]).any())
