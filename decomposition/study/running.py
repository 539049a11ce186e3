"""Running markers: who computes which task now, so that several processes divide the work.

A marker is a file that only one process can create. Its owner touches it while it computes; one
whose owner is dead is removed, under a lock, by whoever wants the task.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from decomposition.atomic import remove_abandoned, unfinished
from decomposition.errors import StoreError
from decomposition.study.machine import birth, machine

HEARTBEAT = 15.0
"""Seconds between two touches of a marker."""
SILENCE = 300.0
"""Seconds without a touch after which an owner on another machine is taken for dead. LAPACK may
hold the interpreter, and with it the heartbeat, for a minute or two."""

RUN = "run-"
"""What a driver's marker is called, before the name of its run."""


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
    machine: str = field(default_factory=machine)
    pid: int = field(default_factory=os.getpid)
    birth: str = field(default_factory=lambda: birth(os.getpid()) or "")
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


class RunningTasks:
    """The running markers of a study's folder.

    Raises:
        OSError: the folder cannot be used.
        StoreError: no marker can be written in it.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder of the markers if needed."""
        self.folder = Path(folder).absolute() / "running"
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder)

    def take(self, key: str, label: str, run: str) -> Owner | None:
        """Mark ``key`` as running here; None if another run's living process has it.

        A marker of the same ``run`` belongs to a process that has died: a run hands a task out
        again only after it has lost it.
        """
        mine = Owner(label, run)
        content = json.dumps(asdict(mine)).encode()
        while True:
            if self._create(key, content):
                return mine
            other = self._read(key)
            if other is None:
                continue  # released between the two lines above
            if other.run == run:
                mine = replace(mine, deaths=other.deaths + 1)
                content = json.dumps(asdict(mine)).encode()
            elif self._alive(key, other):
                return None
            self._remove(key, other)

    def release(self, key: str, owner: Owner) -> None:
        """Remove the marker if it is still the owner's."""
        if self._read(key) == owner:
            self._path(key).unlink(missing_ok=True)

    def owner(self, key: str) -> Owner | None:
        """Who computes ``key`` now; None if nobody alive does."""
        found = self._read(key)
        return found if found is not None and self._alive(key, found) else None

    def owners(self) -> dict[str, Owner]:
        """Key → who computes it now."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        keys = [name for name in names if not name.startswith(RUN)]
        return {key: owner for key in keys if (owner := self.owner(key)) is not None}

    def release_dead(self, run: str) -> None:
        """Remove the markers that dead processes of ``run`` on this machine left."""
        for path in self.folder.glob("*.json"):
            found = self._read(path.stem)
            if found is not None and found.run == run and not self._alive(path.stem, found):
                self._remove(path.stem, found)

    @contextlib.contextmanager
    def announce(self, run: str, label: str) -> Iterator[None]:
        """Show that this process drives ``run`` while the block runs; workers look for it."""
        self._remove_orphans()
        mine = self.take(RUN + run, label, run)
        assert mine is not None, "two runs with one random name"
        try:
            with self.heartbeat(RUN + run):
                yield
        finally:
            self.release(RUN + run, mine)

    def announced(self, run: str) -> bool:
        """Whether the folder seen here is that of a driver of ``run``."""
        return self._path(RUN + run).exists()

    @contextlib.contextmanager
    def heartbeat(self, key: str) -> Iterator[None]:
        """Touch the marker while the block runs."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT):
                with contextlib.suppress(OSError):
                    os.utime(self._path(key))

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _remove_orphans(self) -> None:
        """Remove the markers of dead processes whose runs are over, or were killed too."""
        found = {
            path.stem: owner
            for path in self.folder.glob("*.json")
            if (owner := self._read(path.stem)) is not None
        }
        dead = {key: owner for key, owner in found.items() if not self._alive(key, owner)}
        driven = {found[key].run for key in found.keys() - dead.keys() if key.startswith(RUN)}
        for key, owner in dead.items():
            if owner.run not in driven:  # a living run counts the deaths of its workers
                self._remove(key, owner)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _create(self, key: str, content: bytes) -> bool:
        """Create the marker whole: a name that exists is never seen with half a content."""
        whole = unfinished(self._path(key))
        try:
            whole.write_bytes(content)
            os.link(whole, self._path(key))
        except FileExistsError:
            return False
        except OSError as error:
            raise self._failure(error) from error
        finally:
            whole.unlink(missing_ok=True)
        return True

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(
            f"the study's folder {self.folder.parent} cannot be written "
            f"({error.strerror or error}): free space or choose another folder; finished tasks "
            "are kept and the same command goes on after them"
        )

    def _read(self, key: str) -> Owner | None:
        try:
            return _parse(self._path(key).read_bytes())
        except FileNotFoundError:
            return None

    def _alive(self, key: str, owner: Owner) -> bool:
        if owner.machine == machine():
            return birth(owner.pid) == owner.birth
        try:
            with self._path(key).open("rb") as file:  # opening asks a network file system anew
                touched = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return False
        return self._now() - touched < SILENCE

    def _now(self) -> float:
        """The time by the clock of the file system, which is the one that dates the markers."""
        clock = self.folder / ".clock"
        try:
            clock.touch()
            return clock.stat().st_mtime
        except OSError as error:
            raise self._failure(error) from error

    def _remove(self, key: str, dead: Owner) -> None:
        """Remove the marker of ``dead``, and never that of whoever has taken over since."""
        with self._locked():
            if self._read(key) == dead:
                self._path(key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = (self.folder / ".lock").open("a")
        except OSError as error:
            raise self._failure(error) from error
        with lock as file:
            # a file system or platform without locks risks computing a task twice, no more
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _parse(content: bytes) -> Owner:
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):  # a crash of the whole machine leaves half-written files
        token = hashlib.sha256(content).hexdigest()
        return Owner("", "", 0, "", "unknown", 0, "", 0.0, token)
