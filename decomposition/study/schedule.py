"""Which tasks of a study run when: side by side as memory allows, on how many threads.

Tasks of a stage are split by memory: those of which fewer fit at once form a group of their own,
computed by fewer processes with more threads each. Within a group the longest start first. What is
decided stands in ``study.json``, so that a resumed task runs on as many threads as an undisturbed
one, and so that a study's progress can be told without it.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from decomposition.atomic import write_atomically
from decomposition.errors import StoreError
from decomposition.resources import FRACTION, cores, free_memory
from decomposition.study.executors import Backend
from decomposition.study.running import RunningTasks
from decomposition.study.store import CellStore
from decomposition.study.task import Task

NAME = "study.json"
UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class Group:
    """Tasks that run side by side."""

    tasks: tuple[Task, ...]
    """Longest first."""
    jobs: int
    """How many at once."""
    threads: int
    """Threads of each."""

    @property
    def stage(self) -> int:
        """The tasks' stage."""
        return self.tasks[0].stage


def grouped(
    tasks: Sequence[Task],
    cores: int,
    memory: int,
    jobs: int | None = None,
    threads: int | None = None,
    decided: Callable[[Task], int | None] = lambda task: None,
) -> list[Group]:
    """The tasks in the order in which they run.

    A group has as many jobs as ``jobs`` or, by default, the cores and the number of tasks in its
    stage allow, and as ``memory`` holds; at least one. The memory of what runs at once is then at
    most ``memory`` unless a single task exceeds it.

    Args:
        tasks: of any stage.
        cores: processor cores to share.
        memory: bytes to share.
        jobs: most tasks at once.
        threads: of each task; default cores // jobs.
        decided: threads of a task, if they are decided already.
    """
    members: dict[tuple[int, int, int], list[Task]] = {}
    sizes = Counter(task.stage for task in tasks)
    for task in tasks:
        fixed = threads or decided(task)
        limit = min(jobs or max(1, cores // (fixed or 1)), sizes[task.stage])
        number = max(1, min(limit, memory // max(1, task.memory())))
        members.setdefault((task.stage, number, fixed or max(1, cores // number)), []).append(task)
    return [
        Group(tuple(sorted(group, key=lambda task: -task.seconds())), number, count)
        for (_, number, count), group in sorted(members.items(), key=lambda item: item[0])
    ]


def makespan(groups: Iterable[Group]) -> float:
    """Predicted wall seconds of ``groups``, one after the other.

    A task of s processor seconds is taken to last s / threads.
    """
    return sum(
        schedule_length([task.seconds() / group.threads for task in group.tasks], group.jobs)
        for group in groups
    )


def schedule_length(durations: Iterable[float], jobs: int) -> float:
    """Length of the schedule in which each of ``jobs`` workers takes the longest that is left."""
    busy = [0.0] * jobs
    for duration in sorted(durations, reverse=True):
        heapq.heapreplace(busy, busy[0] + duration)
    return max(busy)


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
    folder: Path, tasks: Mapping[str, Entry], keep_threads: bool = True
) -> dict[str, Entry]:
    """Add ``tasks`` to ``study.json`` and return the whole.

    A task that differs from an earlier one in its key alone replaces it: the code has changed. A
    task that is there keeps its number of threads, unless ``keep_threads`` is false.

    Raises:
        StoreError: the file cannot be read or written.
    """
    with RunningTasks(folder).alone():
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


def missing_groups(
    tasks: Iterable[Task], folder: Path, backend: Backend, memory: int | None = None
) -> list[Group]:
    """The groups that ``run_tasks`` with these arguments would compute, without starting anything.

    ``makespan`` of them is the predicted wall time. A cluster is not asked for its size: it is
    taken to have as many processors as this machine, or ``backend.jobs`` workers.
    """
    by_key = {task.key(): task for task in tasks}
    manifest, store = read_manifest(folder), CellStore(folder)
    decided = {} if backend.threads else {key: entry.threads for key, entry in manifest.items()}
    default = 1 if backend.cluster else 0
    size = ((backend.jobs or cores()) if backend.cluster else cores(), default)
    groups = _groups(by_key, backend, memory, size, decided)
    return only(groups, [by_key[key] for key in by_key if not store.has(key)])


def planned(
    tasks: Mapping[str, Task],
    folder: Path,
    backend: Backend,
    memory: int | None,
    size: tuple[int, int],
) -> list[Group]:
    """All ``tasks`` (by key) in groups, with what is decided about them in ``study.json``.

    Groups are made of finished tasks too, so that a resumed study computes each task on as many
    threads as an undisturbed one.

    Args:
        tasks: by key.
        folder: the study's.
        backend: what runs them.
        memory: bytes to share; None: three quarters of what is free, and no bound on a cluster.
        size: cores, and threads of a task unless they are given (0: from the number of jobs).

    Raises:
        StoreError: ``study.json`` cannot be read or written.
    """
    first = _groups(tasks, backend, memory, size, {})
    threads = {id(task): group.threads for group in first for task in group.tasks}
    entries = {key: Entry.of(task, threads[id(task)]) for key, task in tasks.items()}
    merged = merge_manifest(folder, entries, keep_threads=backend.threads is None)
    return _groups(tasks, backend, memory, size, {key: e.threads for key, e in merged.items()})


def only(groups: Sequence[Group], tasks: Iterable[Task]) -> list[Group]:
    """``groups`` reduced to ``tasks``."""
    wanted = {id(task) for task in tasks}
    reduced = [
        replace(group, tasks=tuple(task for task in group.tasks if id(task) in wanted))
        for group in groups
    ]
    return [group for group in reduced if group.tasks]


def _groups(
    tasks: Mapping[str, Task],
    backend: Backend,
    memory: int | None,
    size: tuple[int, int],
    decided: Mapping[str, int],
) -> list[Group]:
    available, default = size
    if memory is None:
        memory = UNBOUNDED if backend.cluster else int(FRACTION * free_memory())
    keys = {id(task): key for key, task in tasks.items()}
    return grouped(
        list(tasks.values()),
        available,
        memory,
        1 if backend.name == "sequential" else backend.jobs,
        backend.threads,
        lambda task: decided.get(keys[id(task)]) or default or None,
    )
