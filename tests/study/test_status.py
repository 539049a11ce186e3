"""The state of a study, told from its folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from decomposition import cli
from decomposition.errors import StudyError
from decomposition.study.executors import Backend
from decomposition.study.progress import duration
from decomposition.study.runner import run_tasks
from decomposition.study.running import RunningTasks
from decomposition.study.schedule import Entry, merge_manifest
from decomposition.study.status import study_status
from decomposition.study.store import CellStore, Timing
from tests.study.tiny_tasks import Early, Tiny

DONE, STALE, FAILED, MISSING, RUNNING = Early(0), Tiny(1), Tiny(2, "fail"), Tiny(3), Tiny(4)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """One task in every state, and a result of earlier code."""
    backend = Backend("sequential", threads=1)
    run_tasks([DONE, STALE, FAILED], tmp_path, backend=backend, progress=False)
    newer = Tiny(STALE.seed, source="damping.py")
    entries = {task.key(): Entry.of(task, 1) for task in (newer, MISSING, RUNNING)}
    merge_manifest(tmp_path, entries)
    held = RunningTasks(tmp_path).take(RUNNING.key(), RUNNING.label, "another run")
    assert held is not None
    with held:
        yield tmp_path


def test_every_task_has_a_state(folder: Path) -> None:
    status = study_status(folder)
    states = {task.entry.label: task.state for task in status.tasks}
    assert states == {
        "tiny 0": "done",
        "tiny 1": "missing",
        "tiny 2": "failed",
        "tiny 3": "missing",
        "tiny 4": "running",
    }
    assert status.counts() == {"failed": 1, "running": 1, "missing": 2, "done": 1}
    assert status.stale == (STALE.key(),)


def test_a_damaged_result_is_missing(folder: Path) -> None:
    (folder / "cells" / f"{DONE.key()}.cell").write_bytes(b"damaged")
    assert study_status(folder).counts()["done"] == 0


def test_the_time_left_is_scaled_by_what_tasks_have_taken(folder: Path) -> None:
    store = CellStore(folder)
    timing = store.timing(DONE.key())
    assert timing is not None
    store.save_timing(DONE.key(), Timing(**asdict(timing) | {"seconds": 100.0}))
    # three tasks of 1 predicted second, each 100 times as long, on the one process that runs
    assert study_status(folder).seconds_left == pytest.approx(300.0, abs=10.0)


def test_the_command_shows_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["decompose", "study", "status", str(folder)])
    cli.main()
    said = capsys.readouterr().out
    assert "tiny 2  RuntimeError: no numbers for seed 2\n" in said
    assert "5 tasks: 1 done, 2 missing, 1 running, 1 failed" in said
    assert "1 stored results belong to no task" in said
    assert " left" in said


def test_long_tables_are_cut_unless_asked_for(tmp_path: Path) -> None:
    entries = {task.key(): Entry.of(task, 1) for task in map(Tiny, range(50))}
    merge_manifest(tmp_path, entries)
    status = study_status(tmp_path)
    assert "missing  … and 30 more" in status.text()
    assert status.text(everything=True).count("tiny ") == 50


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=f"no study in {tmp_path}"):
        study_status(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (600, "10 min"), (11100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
