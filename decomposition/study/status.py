"""How far a study is, from its folder alone: done, running, failed, missing, and time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from decomposition.errors import StudyError
from decomposition.resources import cores
from decomposition.study.progress import duration
from decomposition.study.running import RunningTasks
from decomposition.study.schedule import NAME, Entry, read_manifest, schedule_length
from decomposition.study.store import CellStore

State = Literal["failed", "running", "missing", "done"]
ROWS = 20
"""Tasks of one state that the table names unless asked for all."""


@dataclass(frozen=True)
class TaskStatus:
    """One task of a study."""

    key: str
    entry: Entry
    state: State
    seconds: float | None = None
    """Wall time of the computation so far, or of the last attempt."""
    host: str = ""
    error: str = ""
    """First line of a failure."""


@dataclass(frozen=True)
class Status:
    """All tasks of a study."""

    folder: Path
    tasks: tuple[TaskStatus, ...]
    """Lower stages first, then by label."""
    stale: tuple[str, ...]
    """Keys of stored results that belong to no task: of earlier code or configurations."""
    seconds_left: float
    """Predicted wall seconds until nothing is missing, with as many tasks at once as run now or,
    if none does, as this machine has cores for."""

    def counts(self) -> dict[State, int]:
        """Number of tasks in each state."""
        found = Counter(task.state for task in self.tasks)
        return {state: found[state] for state in get_args(State)}

    def text(self, everything: bool = False) -> str:
        """A table, the counts and the time left; at most ``ROWS`` of a state, or ``everything``."""
        lines = []
        for state in get_args(State):
            members = [task for task in self.tasks if task.state == state]
            shown = members if everything else members[:ROWS]
            lines += [_row(task) for task in shown]
            if len(members) > len(shown):
                lines.append(f"{state:8} … and {len(members) - len(shown)} more")
        counts = self.counts()
        total = ", ".join(f"{counts[state]} {state}" for state in reversed(get_args(State)))
        lines.append(f"{len(self.tasks)} tasks: {total}")
        if counts["missing"] + counts["running"]:
            lines.append(f"about {duration(self.seconds_left)} left")
        if counts["failed"]:
            lines.append(f"tracebacks of what failed: {self.folder / 'failures'}")
        if self.stale:
            lines.append(
                f"{len(self.stale)} stored results belong to no task of this study (earlier code "
                f"or configuration); they may be removed from {self.folder / 'cells'}"
            )
        return "\n".join(lines)


def study_status(folder: Path) -> Status:
    """The state of every task in ``folder``/study.json.

    Raises:
        StudyError: there is no study in the folder.
        StoreError: the folder cannot be read.
    """
    folder = Path(folder)
    if not (folder / NAME).exists():
        raise StudyError(f"no study in {folder}: {NAME} is written when one starts there")
    manifest, store, running = read_manifest(folder), CellStore(folder), RunningTasks(folder)
    ordered = sorted(manifest.items(), key=lambda item: (item[1].stage, item[1].label))
    tasks = tuple(_task(key, entry, store, running) for key, entry in ordered)
    stale = tuple(key for key in store.keys() if key not in manifest)  # noqa: SIM118
    return Status(folder, tasks, stale, _seconds_left(tasks))


def _task(key: str, entry: Entry, store: CellStore, running: RunningTasks) -> TaskStatus:
    # in the order in which a task moves on, so that none falls between two looks
    owner = running.owner(key)
    if owner is not None:
        return TaskStatus(key, entry, "running", time.time() - owner.started, owner.host)
    if store.has(key):
        timing = store.timing(key)
        if timing is None:
            return TaskStatus(key, entry, "done")
        return TaskStatus(key, entry, "done", timing.seconds, timing.host)
    failure = store.failure(key)
    if failure is not None:
        return TaskStatus(key, entry, "failed", failure.seconds, failure.host, failure.line)
    return TaskStatus(key, entry, "missing")


def _seconds_left(tasks: Sequence[TaskStatus]) -> float:
    """Stage by stage, with predictions scaled by what finished tasks have taken."""
    timed = [task for task in tasks if task.state == "done" and task.seconds is not None]
    expected = sum(_expected(task) for task in timed)
    ratio = sum(task.seconds or 0.0 for task in timed) / expected if expected else 1.0
    busy = sum(task.state == "running" for task in tasks)
    total = 0.0
    for stage in {task.entry.stage for task in tasks}:
        left = [task for task in tasks if task.entry.stage == stage and task.state != "done"]
        jobs = busy or max(1, cores() // max((task.entry.threads for task in left), default=1))
        # what runs has a start on its prediction; what failed is tried again only when asked for
        durations = [
            max(0.0, _expected(task) * ratio - (task.seconds or 0.0))
            for task in left
            if task.state != "failed"
        ]
        total += schedule_length(durations, jobs)
    return total


def _expected(task: TaskStatus) -> float:
    return task.entry.seconds / task.entry.threads


def _row(task: TaskStatus) -> str:
    if task.state == "missing":
        spent = f"({duration(_expected(task))})"
    else:
        spent = "" if task.seconds is None else duration(task.seconds)
    error = f"  {task.error}" if task.error else ""
    return f"{task.state:8} {spent:>10}  {task.entry.label}{error}"
