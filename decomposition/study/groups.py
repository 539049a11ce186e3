"""How many tasks run at once, on how many threads, and how long that takes.

Tasks of a stage are split by memory: those of which fewer fit at once form a group of their own,
computed by fewer processes with more threads each. Within a group the longest start first.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from decomposition.study.task import Task


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
