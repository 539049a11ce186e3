"""Which tasks of a study are missing, and the groups in which they will run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from decomposition.resources import FRACTION, cores, free_memory
from decomposition.study.backends import Backend
from decomposition.study.groups import Group, grouped
from decomposition.study.manifest import Entry, merge_manifest, read_manifest
from decomposition.study.store import CellStore
from decomposition.study.task import Task

UNBOUNDED = 1 << 62


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
    run: str,
) -> list[Group]:
    """All ``tasks`` (by key) in groups, with what is decided about them in ``study.json``.

    Groups are made of finished tasks too, so that a resumed study computes each task on as many
    threads as an undisturbed one.

    Args:
        size: cores, and threads of a task unless they are given (0: from the number of jobs).
        run: name of this run.

    Raises:
        StoreError: ``study.json`` cannot be read or written.
    """
    first = _groups(tasks, backend, memory, size, {})
    threads = {id(task): group.threads for group in first for task in group.tasks}
    entries = {key: Entry.of(task, threads[id(task)]) for key, task in tasks.items()}
    merged = merge_manifest(folder, entries, run, keep_threads=backend.threads is None)
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
