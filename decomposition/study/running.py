"""Who computes which task now, so that several processes and machines divide the work.

Whoever computes a task holds the lock on a file, which the operating system gives up when the
process ends, however it ends; on a network file system its server does, when a machine is gone.
Beside the lock lies a record of the owner for people, and for the count of processes that died.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from decomposition.atomic import remove_abandoned, write_atomically
from decomposition.errors import StoreError

RUN = "run-"
"""What a driver's record is called, before the name of its run."""
DYING = 2.0
"""Seconds that a killed process may take to end."""


@dataclass(frozen=True)
class Owner:
    """Who computes a task."""

    label: str
    """The task, for people."""
    run: str
    """The run of the study that it computes for."""
    deaths: int = 0
    """Processes of this run that died while they computed this task."""
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""


@dataclass(frozen=True)
class Held:
    """A task that this process has taken, until the end of a ``with`` block or ``release``."""

    owner: Owner
    record: Path
    lock: FileLock

    def release(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):
            self.record.unlink(missing_ok=True)
        self.lock.release()

    def __enter__(self) -> Held:
        """Taken already."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Release."""
        self.release()


class RunningTasks:
    """The tasks that are being computed in a study's folder.

    Raises:
        OSError: the folder cannot be used.
        StoreError: nothing can be written in it.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder of locks and records if needed."""
        self.folder = Path(folder).absolute() / "running"
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder)

    def take(self, key: str, label: str, run: str) -> Held | None:
        """Take ``key`` for this process; None if another living one has it, or has a look at it.

        A record of the same ``run`` without a lock is that of a process that has died: a run hands
        a task out again only after it has lost it.
        """
        before = self._read(key)
        mine = before is not None and before.run == run
        lock = self._locked(key, DYING if mine else 0.0)
        if lock is None:
            return None
        before = self._read(key)
        deaths = before.deaths + 1 if before is not None and before.run == run else 0
        held = Held(Owner(label, run, deaths), self._record(key), lock)
        try:
            write_atomically(held.record, json.dumps(asdict(held.owner)).encode())
        except OSError as error:
            lock.release()
            raise self._failure(error) from error
        return held

    def owner(self, key: str) -> Owner | None:
        """Who computes ``key`` now; None if nobody alive does."""
        found = self._read(key)
        if found is None or (lock := self._locked(key, 0.0)) is None:
            return found
        lock.release()
        return None

    def owners(self) -> dict[str, Owner]:
        """Key → who computes it now."""
        keys = [key for key in self._keys() if not key.startswith(RUN)]
        return {key: owner for key in keys if (owner := self.owner(key)) is not None}

    def release_dead(self, run: str) -> None:
        """Remove the records that dead processes of ``run`` left."""
        for key in self._keys():
            found = self._read(key)
            if found is not None and found.run == run:
                self._remove_if_dead(key)

    @contextlib.contextmanager
    def announce(self, run: str, label: str) -> Iterator[None]:
        """Show that this process drives ``run`` while the block runs; workers look for it.

        Records of dead processes whose runs are over, or were killed too, are removed; a living
        run counts the deaths of its workers by them.
        """
        runs = {key.removeprefix(RUN) for key in self._keys() if key.startswith(RUN)}
        driven = {run for run in runs if self.owner(RUN + run) is not None}
        for key in self._keys():
            found = self._read(key)
            if found is None or found.run not in driven:
                self._remove_if_dead(key)
        held = self.take(RUN + run, label, run)
        assert held is not None, "two runs with one random name"
        with held:
            yield
        with contextlib.suppress(OSError):
            self._lock(RUN + run).unlink(missing_ok=True)  # no other run has this name

    def announced(self, run: str) -> bool:
        """Whether the folder seen here is that of a driver of ``run``."""
        return self._record(RUN + run).exists()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time is in this block."""
        lock = self._locked("study", -1)
        assert lock is not None
        try:
            yield
        finally:
            lock.release()

    def _keys(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def _record(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _read(self, key: str) -> Owner | None:
        try:
            return Owner(**json.loads(self._record(key).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # a crash of the whole machine leaves half-written files
            return Owner("", "")

    def _locked(self, key: str, seconds: float) -> FileLock | None:
        """The lock of ``key`` if it is free within so many seconds; below 0: for ever."""
        lock = FileLock(self._lock(key), thread_local=False)
        try:
            lock.acquire(timeout=seconds, poll_interval=0.02)
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            raise self._failure(error) from error
        return lock

    def _remove_if_dead(self, key: str) -> None:
        lock = self._locked(key, 0.0)
        if lock is not None:
            self._record(key).unlink(missing_ok=True)
            lock.release()

    def _failure(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or error
        return StoreError(
            f"the study's folder {self.folder.parent} cannot be written ({reason}): free space or "
            "choose another folder, whose file system has locks; finished tasks are kept and the "
            "same command goes on after them"
        )
