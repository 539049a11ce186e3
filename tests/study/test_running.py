"""Running tasks: one owner at a time, and none that is dead."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from decomposition.errors import StoreError
from decomposition.study import running as module
from decomposition.study.running import Owner, RunningTasks

KEY = "a" * 64


@pytest.fixture
def running(tmp_path: Path) -> RunningTasks:
    return RunningTasks(tmp_path)


def put(running: RunningTasks, owner: Owner) -> Path:
    """What a process that was killed leaves: a record, and a lock that nobody holds."""
    path = running.folder / f"{KEY}.json"
    path.write_text(json.dumps(asdict(owner)))
    return path


HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
input()
"""


@contextmanager
def another_process(running: RunningTasks) -> Iterator[subprocess.Popen]:
    """A process that computes KEY for run ``one``."""
    command = [sys.executable, "-c", HOLD, str(running.folder / f"{KEY}.lock")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        put(running, Owner("elsewhere", "one", pid=process.pid))
        try:
            yield process
        finally:
            process.kill()


def test_a_task_has_one_owner(running: RunningTasks) -> None:
    mine = running.take(KEY, "tiny", "one")
    assert mine is not None
    assert running.owner(KEY) == mine.owner
    assert running.owners() == {KEY: mine.owner}
    assert running.take(KEY, "tiny", "two") is None
    mine.release()
    assert running.owner(KEY) is None
    assert list(running.folder.glob("*.json")) == []


def test_only_one_of_many_takes_a_task(running: RunningTasks) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(5):
            key = f"{number:064}"
            runs = [f"run {k}" for k in range(8)]
            taken = list(threads.map(lambda run, key=key: running.take(key, "", run), runs))
            assert sum(held is not None for held in taken) == 1


def test_only_one_of_many_takes_over_from_the_dead(running: RunningTasks) -> None:
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            put(running, Owner("", "dead"))
            taken = threads.map(lambda run: running.take(KEY, "", run), "abcdefgh")
            owners = [held for held in taken if held is not None]
            assert len(owners) == 1
            owners[0].release()


def test_a_process_owns_its_task_until_it_is_killed(
    running: RunningTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DYING", 0.1)
    with another_process(running) as process:
        owner = running.owner(KEY)
        assert owner is not None
        assert (owner.label, owner.pid) == ("elsewhere", process.pid)
        assert running.take(KEY, "", "two") is None
        assert running.take(KEY, "", "one") is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert running.owner(KEY) is None
        held = running.take(KEY, "", "one")
    assert held is not None
    assert held.owner.deaths == 1


def test_a_record_without_a_lock_is_that_of_a_dead_process(running: RunningTasks) -> None:
    put(running, Owner("", "dead"))
    assert running.owner(KEY) is None
    assert running.owners() == {}


def test_deaths_in_one_run_are_counted(running: RunningTasks) -> None:
    put(running, Owner("", "one", deaths=1))
    mine = running.take(KEY, "", "one")
    assert mine is not None
    assert mine.owner.deaths == 2
    mine.release()
    put(running, Owner("", "one", deaths=2))
    other = running.take(KEY, "", "two")
    assert other is not None
    assert other.owner.deaths == 0


def test_a_half_written_record_is_that_of_nobody(running: RunningTasks) -> None:
    (running.folder / f"{KEY}.json").write_text('{"label": ')
    assert running.owner(KEY) is None
    mine = running.take(KEY, "", "mine")
    assert mine is not None
    assert running.owner(KEY) == mine.owner


def test_a_driver_is_announced_while_it_drives(running: RunningTasks) -> None:
    assert not running.announced("one")
    with running.announce("one", "driver"):
        assert running.announced("one")
        assert running.owners() == {}
    assert not running.announced("one")


def test_a_new_driver_removes_what_dead_runs_left(running: RunningTasks) -> None:
    path = put(running, Owner("", "one"))
    with running.announce("two", "driver"):
        assert not path.exists()
    with running.announce("one", "driver"):
        put(running, Owner("", "one"))
        with running.announce("two", "driver"):
            assert path.exists()


def test_a_full_disk_is_named_and_leaves_no_half_a_record(running: RunningTasks) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written .* finished tasks are kept"):
            running.take(KEY, "tiny", "one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.suffix for path in running.folder.iterdir()] == [".lock"]
    assert running.take(KEY, "tiny", "one") is not None
