"""``study.json``: the tasks that make up a study, so that its progress can be told without it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from decomposition.atomic import write_atomically
from decomposition.errors import StoreError
from decomposition.study.running import RunningTasks
from decomposition.study.task import Task

NAME = "study.json"
_LOCK = "run-manifest"


@dataclass(frozen=True)
class Entry:
    """One task."""

    kind: str
    label: str
    stage: int
    config: dict[str, Any]
    seconds: float
    """Predicted processor seconds."""
    memory: int
    """Predicted peak bytes."""
    threads: int
    """Threads it runs on: decided once, since the last bits of a result depend on them."""

    @classmethod
    def of(cls, task: Task, threads: int) -> Entry:
        """The entry of ``task`` on ``threads`` threads."""
        config = json.loads(json.dumps(task.config()))  # as it will be read again
        seconds, memory = float(task.seconds()), int(task.memory())
        return cls(task.kind, task.label, task.stage, config, seconds, memory, threads)

    def identity(self) -> str:
        """What stays the same when the code or a version changes, and the key with it."""
        return json.dumps([self.kind, self.config], sort_keys=True)


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Key → task of the study in ``folder``; empty if none has started there.

    Raises:
        StoreError: the file cannot be read.
    """
    path = Path(folder) / NAME
    try:
        tasks: Mapping[str, Any] = json.loads(path.read_bytes())["tasks"]
        return {key: Entry(**entry) for key, entry in tasks.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}): remove it; results do not depend on it, and the "
            "next run writes it again"
        ) from error


def merge_manifest(
    folder: Path, tasks: Mapping[str, Entry], run: str, keep_threads: bool = True
) -> dict[str, Entry]:
    """Add ``tasks`` to ``study.json`` and return the whole.

    A task that differs from an earlier one in its key alone replaces it: the code has changed. A
    task that is there keeps its number of threads, unless ``keep_threads`` is false.

    Raises:
        StoreError: the file cannot be read or written.
    """
    with _alone(folder, run):
        earlier = read_manifest(folder)
        replaced = {entry.identity() for entry in tasks.values()}
        merged = {key: e for key, e in earlier.items() if e.identity() not in replaced}
        for key, entry in tasks.items():
            threads = earlier[key].threads if keep_threads and key in earlier else entry.threads
            merged[key] = replace(entry, threads=threads)
        content = {"version": 1, "tasks": {key: asdict(entry) for key, entry in merged.items()}}
        try:
            text = json.dumps(content, indent=1, sort_keys=True).encode()
            write_atomically(Path(folder) / NAME, text)
        except OSError as error:
            raise StoreError(
                f"{Path(folder) / NAME} cannot be written ({error.strerror or error}): free space "
                "or choose another folder"
            ) from error
    return merged


@contextlib.contextmanager
def _alone(folder: Path, run: str) -> Iterator[None]:
    running = RunningTasks(folder)
    while (mine := running.take(_LOCK, "manifest", run)) is None:
        time.sleep(0.05)
    try:
        yield
    finally:
        running.release(_LOCK, mine)
