"""Running markers: one owner at a time, and none that is dead."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from decomposition.errors import StoreError
from decomposition.study import running as module
from decomposition.study.machine import birth
from decomposition.study.running import SILENCE, Owner, RunningTasks

KEY = "a" * 64


@pytest.fixture
def running(tmp_path: Path) -> RunningTasks:
    return RunningTasks(tmp_path)


def put(running: RunningTasks, owner: Owner, age: float = 0.0) -> Path:
    path = running.folder / f"{KEY}.json"
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_task_has_one_owner(running: RunningTasks) -> None:
    mine = running.take(KEY, "tiny", "one")
    assert mine is not None
    assert running.owner(KEY) == mine
    assert running.owners() == {KEY: mine}
    assert running.take(KEY, "tiny", "two") is None
    running.release(KEY, mine)
    assert running.owner(KEY) is None
    assert list(running.folder.glob("*.json")) == []


def test_only_one_of_many_takes_a_task(running: RunningTasks) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            key = f"{number:064}"
            runs = [f"run {k}" for k in range(8)]
            taken = list(threads.map(lambda run, key=key: running.take(key, "", run), runs))
            assert sum(owner is not None for owner in taken) == 1


def test_only_one_of_many_takes_over_from_the_dead(running: RunningTasks) -> None:
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            put(running, replace(Owner("", "dead"), pid=gone()))
            taken = threads.map(lambda run: running.take(KEY, "", run), "abcdefgh")
            owners = [owner for owner in taken if owner is not None]
            assert len(owners) == 1
            running.release(KEY, owners[0])


def gone() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_killed_process_is_dead_before_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=-1) as process:
        assert birth(process.pid) is not None
        process.kill()
        deadline = time.monotonic() + 10
        while birth(process.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert birth(process.pid) is None


def test_a_new_process_with_an_old_number_is_not_the_owner(running: RunningTasks) -> None:
    put(running, replace(Owner("", "dead"), birth="0"))
    assert running.owner(KEY) is None


def test_the_owner_on_this_machine_lives_as_long_as_its_process(running: RunningTasks) -> None:
    put(running, Owner("", "long product"), age=10 * SILENCE)
    assert running.owner(KEY) is not None


@pytest.mark.parametrize(("age", "alive"), [(0.5 * SILENCE, True), (1.5 * SILENCE, False)])
def test_the_owner_elsewhere_lives_as_long_as_it_is_heard(
    running: RunningTasks, age: float, alive: bool
) -> None:
    put(running, replace(Owner("", "other"), machine="elsewhere"), age)
    assert (running.owner(KEY) is not None) == alive
    assert (running.take(KEY, "", "mine") is None) == alive


def test_the_heart_beats(running: RunningTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    path = put(running, Owner("", "mine"), age=1000.0)
    with running.heartbeat(KEY):
        deadline = time.monotonic() + 10
        while time.time() - path.stat().st_mtime > 500 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert time.time() - path.stat().st_mtime < 500


def test_deaths_in_one_run_are_counted(running: RunningTasks) -> None:
    found = [running.take(KEY, "", "one") for _ in range(3)]
    assert [owner and owner.deaths for owner in found] == [0, 1, 2]
    put(running, replace(Owner("", "one"), pid=gone(), deaths=2))
    other = running.take(KEY, "", "two")
    assert other is not None
    assert other.deaths == 0


def test_what_another_has_taken_over_is_not_released(running: RunningTasks) -> None:
    first = running.take(KEY, "", "one")
    second = running.take(KEY, "", "one")
    assert first is not None
    running.release(KEY, first)
    assert running.owner(KEY) == second


def test_a_half_written_marker_is_waited_for_and_then_taken(running: RunningTasks) -> None:
    path = running.folder / f"{KEY}.json"
    path.write_text('{"label": ')
    assert running.take(KEY, "", "mine") is None
    os.utime(path, (time.time() - 2 * SILENCE,) * 2)
    assert running.take(KEY, "", "mine") is not None


def test_a_driver_is_announced_while_it_drives(running: RunningTasks) -> None:
    assert not running.announced("one")
    with running.announce("one", "driver"):
        assert running.announced("one")
        assert running.owners() == {}
    assert not running.announced("one")


def test_a_new_driver_removes_what_dead_runs_left(running: RunningTasks) -> None:
    path = put(running, replace(Owner("", "one"), pid=gone()))
    with running.announce("two", "driver"):
        assert not path.exists()
    with running.announce("one", "driver"):
        put(running, replace(Owner("", "one"), pid=gone()))
        with running.announce("two", "driver"):
            assert path.exists()


def test_a_full_disk_is_named_and_leaves_no_half_a_marker(running: RunningTasks) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written .* finished tasks are kept"):
            running.take(KEY, "tiny", "one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(running.folder.iterdir()) == []
    assert running.take(KEY, "tiny", "one") is not None
