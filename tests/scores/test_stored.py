"""Training gradients on disk: the same products, whole or not at all, and named errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decomposition.atomic import UNFINISHED
from decomposition.chain import build_chain
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.errors import DecompositionError, StoreError
from decomposition.problem import Problem
from decomposition.scores import stored
from decomposition.scores.gradients import StreamedGradients
from decomposition.scores.stored import StoredGradients
from tests import general
from tests.elsewhere import elsewhere
from tests.scores.interrupted import CHUNKS, finished, gradients
from tests.scores.interrupted import problem as slow

ROOT = Path(__file__).parents[2]
ROUNDING = {"float64": 1e-12, "float32": 2e-6}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return general.cnn()


@pytest.fixture
def three_a_chunk(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "CHUNK_NUMBERS", 3 * problem.num_parameters)


def directions(problem: Problem) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(problem.num_parameters, 5, generator=generator, dtype=torch.float64)


@pytest.mark.usefixtures("three_a_chunk")
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_products_are_those_of_a_sweep(problem: Problem, tmp_path: Path, precision: str) -> None:
    kept = StoredGradients(problem, tmp_path, precision)  # pyright: ignore
    v = directions(problem)
    scale = ROUNDING[precision]
    expected = StreamedGradients(problem).along(v)
    torch.testing.assert_close(kept.along(v), expected, rtol=scale, atol=scale)
    exact = per_example_gradients(problem, *problem.train)
    assert kept.shape == tuple(exact.shape)
    assert len(kept) == problem.num_examples
    torch.testing.assert_close(kept.rows(slice(2, 7)), exact[2:7], rtol=scale, atol=scale)
    file = np.load(kept.path, mmap_mode="r")
    assert file.dtype == precision
    np.testing.assert_allclose(file, exact, rtol=scale, atol=scale)


@pytest.mark.usefixtures("three_a_chunk")
def test_scores_are_streamed_scores(problem: Problem, tmp_path: Path) -> None:
    kept = StoredGradients(problem, tmp_path, "float64")
    chain = build_chain(problem)
    stored, streamed = StreamedGradients(problem, stored=kept), StreamedGradients(problem)
    for rung in ("ggn", "kfac"):
        for damping in (1e-2, 1.0):
            expected = streamed.scores(chain[rung], damping)
            torch.testing.assert_close(
                stored.scores(chain[rung], damping), expected, rtol=1e-10, atol=1e-12
            )


@pytest.mark.usefixtures("three_a_chunk")
def test_what_is_there_is_read(problem: Problem, tmp_path: Path) -> None:
    first = StoredGradients(problem, tmp_path)
    stamp = first.path.stat().st_mtime_ns
    again = StoredGradients(problem, tmp_path)
    assert again.path.stat().st_mtime_ns == stamp
    v = directions(problem)
    torch.testing.assert_close(again.along(v), first.along(v), rtol=0, atol=0)


def test_other_parameters_and_precisions_are_other_files(problem: Problem, tmp_path: Path) -> None:
    moved = problem.double_model()
    with torch.no_grad():
        next(moved.parameters()).mul_(1.01)
    paths = {
        StoredGradients(problem, tmp_path).path,
        StoredGradients(problem, tmp_path, "float64").path,
        StoredGradients(replace(problem, model=moved), tmp_path).path,
    }
    assert len(paths) == 3
    assert all(path.is_file() for path in paths)


def test_a_killed_process_is_resumed(tmp_path: Path) -> None:
    """What was finished is kept, and the whole is what one process writes."""
    command = [sys.executable, "-m", "tests.scores.interrupted", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        while finished(tmp_path) < 3 and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode != 0
    done = finished(tmp_path)
    assert 3 <= done < CHUNKS
    (path,) = tmp_path.glob("*.npy")
    rows = np.load(path, mmap_mode="r+")
    rows[done] = np.nan  # the chunk in which it was killed may be half written
    rows.flush()
    before = rows[:done].copy()
    for file in tmp_path.glob(f"*{UNFINISHED}"):  # it may have been killed while it wrote one
        os.utime(file, (0, 0))
    kept = gradients(tmp_path)
    assert kept.path == path
    assert finished(tmp_path) == CHUNKS
    exact = per_example_gradients(slow(), *slow().train)
    torch.testing.assert_close(kept.rows(slice(0, CHUNKS)), exact, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(kept.rows(slice(0, done)), before)
    assert {file.suffix for file in tmp_path.iterdir()} == {".npy", ".json"}


@pytest.mark.usefixtures("three_a_chunk")
def test_damage_is_found(problem: Problem, tmp_path: Path) -> None:
    kept = StoredGradients(problem, tmp_path)
    rows = np.load(kept.path, mmap_mode="r+")
    rows[4, 0] += 1
    rows.flush()
    with pytest.raises(StoreError, match="damaged in rows 3 to 5: delete"):
        StoredGradients(problem, tmp_path).along(directions(problem))
    with kept.path.open("r+b") as file:
        file.truncate(200)
    mended = StoredGradients(problem, tmp_path)
    exact = per_example_gradients(problem, *problem.train)
    torch.testing.assert_close(mended.rows(slice(0, 8)), exact, rtol=2e-6, atol=2e-6)


def test_a_disk_that_is_too_small_is_said_before_the_work(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(
        StoreError, match=r" has 0\.00 MiB left: precision float32 .* without a folder"
    ):
        StoredGradients(problem, tmp_path, "float64")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(problem: Problem, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        StoredGradients(problem, tmp_path / "file")


def test_wrong_precisions_and_shapes_are_named(problem: Problem, tmp_path: Path) -> None:
    with pytest.raises(DecompositionError, match="float32 or float64"):
        StoredGradients(problem, tmp_path, "float16")  # pyright: ignore
    with pytest.raises(DecompositionError, match=r"directions are \(\d+, k\)"):
        StoredGradients(problem, tmp_path).along(torch.zeros(3, 2, dtype=torch.float64))


def test_rows_and_products_lie_where_the_problem_lies(problem: Problem, tmp_path: Path) -> None:
    v = directions(problem)
    here = StoredGradients(problem, tmp_path / "here", "float64")
    with elsewhere() as device:
        there = StoredGradients(problem.to(device), tmp_path / "there", "float64")
        assert there.rows(slice(0, 2)).device == device
        found = there.along(v.to(device)).cpu()
    torch.testing.assert_close(found, here.along(v), rtol=1e-10, atol=1e-12)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGED_RECORDS = {
    "empty object": b"{}",
    "list": b"[1, 2]",
    "null": b"null",
    "bytes": b"\xff\x00",
    "no list": b'"checksums"',
}


@pytest.mark.usefixtures("three_a_chunk")
def test_a_damaged_record_or_header_is_made_again(problem: Problem, tmp_path: Path) -> None:
    kept = StoredGradients(problem, tmp_path)
    array, path = kept.path.read_bytes(), kept.path.with_suffix(".json")
    record = json.loads(path.read_bytes())
    records = [*DAMAGED_RECORDS.values()]
    for sums in (None, ["a"], record["checksums"] * 2, {"0": 1}):
        records.append(json.dumps(record | {"checksums": sums}).encode())
    for damaged in records:
        path.write_bytes(damaged)
        assert StoredGradients(problem, tmp_path).path.read_bytes() == array
        assert json.loads(path.read_bytes()) == record
    for place in (0, 6, 9, array.index(b"<f4"), array.index(b"False"), array.index(b"shape") + 9):
        kept.path.write_bytes(flipped(array, place))
        assert StoredGradients(problem, tmp_path).path.read_bytes() == array


@pytest.mark.usefixtures("three_a_chunk")
def test_damaged_rows_are_not_handed_out(problem: Problem, tmp_path: Path) -> None:
    path = StoredGradients(problem, tmp_path).path
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 1))
    again, last = StoredGradients(problem, tmp_path), problem.num_examples - 1
    assert again.rows(slice(0, 3)).isfinite().all()
    with pytest.raises(StoreError, match="damaged in rows"):
        again.rows(slice(last, last + 1))
