"""A study loses nothing: killed, shared, failing or damaged, it ends with the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decomposition.study.executors import Backend
from decomposition.study.runner import Outcome, run_tasks
from decomposition.study.running import RunningTasks
from decomposition.study.schedule import read_manifest
from decomposition.study.store import CellStore
from decomposition.study.task import Task
from tests.study.processes import ROOT, driver, wait_until
from tests.study.tiny_tasks import Early, Tiny, attempts, cells, many


def run(folder: Path, tasks: list[Task] | list[Tiny], **options) -> Outcome:
    backend = Backend("sequential", threads=1)
    return run_tasks(tasks, folder, backend=backend, progress=False, **options)


def nothing_running(folder: Path) -> bool:
    return list((folder / "running").glob("*.json")) == []


def drives(folder: Path, pid: int | None) -> bool:
    for path in (folder / "running").glob("run-*.json"):
        with contextlib.suppress(FileNotFoundError):  # that of a dead driver, just removed
            if json.loads(path.read_text())["pid"] == pid:
                return True
    return False


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    tasks = many(4)
    first = run(tmp_path, tasks)
    before = cells(tmp_path)
    second = run(tmp_path, [*tasks, *tasks])
    assert sorted(first.done) == sorted(second.reused) == sorted(task.key() for task in tasks)
    assert second.done == ()
    assert cells(tmp_path) == before
    assert nothing_running(tmp_path)


def test_lower_stages_first_then_the_longest(tmp_path: Path) -> None:
    tasks = [Tiny(0, cost=1), Tiny(1, cost=3), Early(2, cost=2), Tiny(3, cost=2), Early(4, cost=5)]
    done = run(tmp_path, tasks).done
    assert done == tuple(tasks[k].key() for k in (4, 2, 1, 3, 0))


def test_a_failing_task_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Tiny(9, "fail", cost=5)
    outcome = run(tmp_path, [bad, Tiny(8, "exit", cost=4), *many(3)])
    assert len(outcome.done) == 3
    assert sorted(failure.line for failure in outcome.failed.values()) == [
        "RuntimeError: no numbers for seed 9",
        "SystemExit: user code that exits",
    ]
    kept = CellStore(tmp_path).failure(bad.key())
    assert kept == outcome.failed[bad.key()]
    assert kept is not None
    assert "in compute" in kept.traceback
    assert kept.host
    said = capsys.readouterr().err
    assert "2 of 5 tasks failed" in said
    assert "tiny 9: RuntimeError: no numbers for seed 9" in said


def test_failed_tasks_are_tried_again_unless_asked_not_to(tmp_path: Path) -> None:
    bad = Tiny(9, "fail")
    for retry, expected in ((True, 1), (False, 1), (True, 2)):
        outcome = run(tmp_path, [bad], retry_failed=retry)
        assert list(outcome.failed) == [bad.key()]
        assert attempts(tmp_path, 9) == expected


def test_success_forgets_the_failure(tmp_path: Path) -> None:
    flaky = Tiny(9, "fail once")
    assert list(run(tmp_path, [flaky]).failed) == [flaky.key()]
    assert run(tmp_path, [flaky]).done == (flaky.key(),)
    assert CellStore(tmp_path).failure(flaky.key()) is None


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    tasks = many(3)
    run(tmp_path, tasks)
    before = cells(tmp_path)
    victim = tmp_path / "cells" / f"{tasks[1].key()}.cell"
    victim.write_bytes(before[victim.name][:-1])
    assert run(tmp_path, tasks).done == (tasks[1].key(),)
    assert cells(tmp_path) == before


def test_changed_code_never_meets_a_stale_result(tmp_path: Path) -> None:
    run(tmp_path, [Tiny(1)])
    edited = Tiny(1, source="damping.py")
    assert run(tmp_path, [edited]).done == (edited.key(),)
    assert attempts(tmp_path, 1) == 2
    assert list(read_manifest(tmp_path)) == [edited.key()]


def test_other_tasks_join_those_of_the_folder(tmp_path: Path) -> None:
    run(tmp_path, [Tiny(1)])
    run(tmp_path, [Tiny(2)])
    assert set(read_manifest(tmp_path)) == {Tiny(1).key(), Tiny(2).key()}


def test_threads_of_a_resumed_task_are_those_of_its_first_run(tmp_path: Path) -> None:
    tasks = [Tiny(seed) for seed in range(3)]
    run_tasks(tasks, tmp_path, backend=Backend("sequential", threads=2), progress=False)
    (tmp_path / "cells" / f"{tasks[0].key()}.cell").unlink()
    before = cells(tmp_path)
    run_tasks(tasks, tmp_path, backend=Backend("sequential"), progress=False)
    found = CellStore(tmp_path).load(tasks[0].key())
    assert found is not None
    levels = found["levels"].to_dataset()
    assert (levels.attrs["threads"], levels.attrs["torch"]) == (2, 2)
    assert before.items() <= cells(tmp_path).items()


def test_killed_at_twenty_random_points(tmp_path: Path) -> None:
    tasks, chance = many(80, 0.02), random.Random(0)
    run(tmp_path / "undisturbed", many(80))
    folder, progress = tmp_path / "killed", [0]
    for _ in range(20):
        process = driver(folder, tasks)
        wait_until(lambda process=process: drives(folder, process.pid))
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        progress.append(len(cells(folder)))
    assert 0 < progress[-1] < len(tasks)
    assert len(set(progress)) > 5
    run(folder, tasks)
    assert cells(folder) == cells(tmp_path / "undisturbed")
    assert nothing_running(folder)


@pytest.mark.slow
def test_processes_and_their_workers_killed_at_twenty_random_points(tmp_path: Path) -> None:
    tasks, chance = many(60, 0.3), random.Random(1)
    run(tmp_path / "undisturbed", many(60))
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.study.tiny_tasks", str(folder), "loky", "60", "0.3"]
    for _ in range(20):
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
            begun = len(cells(folder))
            wait_until(
                lambda process=process, begun=begun: (
                    len(cells(folder)) > begun or process.poll() is not None
                )
            )
            time.sleep(chance.uniform(0.0, 0.5))
            everything = chance.random() < 0.5
            kill = os.killpg if everything else os.kill
            kill(process.pid, signal.SIGKILL)
        if len(cells(folder)) == len(tasks):
            break
    run(folder, tasks)
    assert cells(folder) == cells(tmp_path / "undisturbed")
    assert nothing_running(folder)


def test_two_processes_divide_the_tasks(tmp_path: Path) -> None:
    tasks = many(12, 0.1)
    run(tmp_path / "alone", many(12))
    folder = tmp_path / "shared"
    processes = [driver(folder, tasks) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [attempts(folder, task.seed) for task in tasks] == [1] * len(tasks)
    workers = {path.name.split("-")[1] for path in (folder / "attempts").iterdir()}
    assert len(workers) == 2
    assert cells(folder) == cells(tmp_path / "alone")


def test_who_waits_takes_over_from_the_dead(tmp_path: Path) -> None:
    task = Tiny(0, "pause once", pause=600.0)
    first = driver(tmp_path, [task])
    wait_until(lambda: attempts(tmp_path, 0) == 1)
    second = driver(tmp_path, [task])
    wait_until(lambda: len(list((tmp_path / "running").glob("run-*.json"))) == 2)
    time.sleep(0.3)
    assert second.is_alive()
    first.kill()
    second.join()
    assert attempts(tmp_path, 0) == 2
    assert list(cells(tmp_path)) == [f"{task.key()}.cell"]
    first.join()


def test_a_failure_elsewhere_is_not_repeated_here(tmp_path: Path) -> None:
    tasks = [Tiny(0, "fail", pause=1.0)]
    processes = [driver(tmp_path, tasks) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert attempts(tmp_path, 0) == 1


def test_an_interruption_loses_nothing(tmp_path: Path) -> None:
    tasks = [Tiny(0, cost=9), Tiny(1, "pause once", pause=600.0, cost=8), Tiny(2)]
    process = driver(tmp_path, tasks)
    wait_until(lambda: attempts(tmp_path, 1) == 1)
    while process.is_alive():  # Python drops what is raised within a finaliser: press it again
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(10.0)
    assert process.exitcode == 1
    assert nothing_running(tmp_path)
    assert RunningTasks(tmp_path).owners() == {}
    outcome = run(tmp_path, tasks)
    assert outcome.reused == (tasks[0].key(),)
    assert len(outcome.done) == 2
