"""What a running study says: its plan, a bar in units of predicted time, and what has failed."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from decomposition.resources import size_text
from decomposition.study.running import RunningTasks
from decomposition.study.schedule import Group, schedule_length
from decomposition.study.store import Failure
from decomposition.study.task import Task

FORMAT = "{desc} |{bar}| {percentage:3.0f}%{postfix}"
LABELS = 2
"""Running tasks that are named; the others are counted."""
FAILURES_SHOWN = 10


class Progress:
    """A bar that is full when all predicted seconds are done, refreshed by a thread.

    The time left is that of the schedule of what remains, scaled by how much longer than predicted
    the finished tasks have taken.
    """

    def __init__(
        self, groups: Sequence[Group], keys: dict[int, str], running: RunningTasks, show: bool
    ) -> None:
        """``keys``: id of each task → its key."""
        self._groups, self._keys, self._running = groups, keys, running
        self._left = {keys[id(task)]: task for group in groups for task in group.tasks}
        self._total = len(self._left)
        self._threads = {keys[id(t)]: group.threads for group in groups for t in group.tasks}
        self._taken = self._expected = 0.0
        self._waiting = 0
        self._stop = threading.Event()
        terminal = sys.stderr.isatty()
        self._pause = 1.0 if terminal else 30.0
        self._bar = tqdm(
            total=sum(self._weight(key, task) for key, task in self._left.items()) or 1.0,
            bar_format=FORMAT,
            disable=not show or not self._left,
            mininterval=self._pause,
            dynamic_ncols=True,
        )
        self._thread = threading.Thread(target=self._keep_refreshing, daemon=True)

    def __enter__(self) -> Progress:
        """Start to refresh."""
        if not self._bar.disable:
            self._describe()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._bar.disable:
            self._describe()
        self._bar.close()

    def finish(self, key: str, seconds: float) -> None:
        """A task is over; ``seconds`` of wall time were spent on it here, or 0."""
        task = self._left.pop(key, None)
        if task is None:
            return
        if seconds:
            self._taken += seconds
            self._expected += self._weight(key, task)
        self._bar.update(self._weight(key, task))

    def wait_for(self, others: int) -> None:
        """Nothing is left to do here but to wait for ``others`` tasks of other processes."""
        self._waiting = others

    def seconds_left(self) -> float:
        """Predicted wall seconds until the end."""
        ratio = self._taken / self._expected if self._expected else 1.0
        now = time.time()
        begun = {key: now - owner.started for key, owner in self._running.owners().items()}
        total = 0.0
        for group in self._groups:
            left = [
                max(0.0, self._weight(key, task) * ratio - begun.get(key, 0.0))
                for task in group.tasks
                if (key := self._keys[id(task)]) in self._left
            ]
            total += schedule_length(left, group.jobs)
        return total

    def _weight(self, key: str, task: Task) -> float:
        return max(task.seconds(), 1e-3) / self._threads[key]

    def _keep_refreshing(self) -> None:
        while not self._stop.wait(self._pause):
            with contextlib.suppress(
                OSError
            ):  # the folder may hiccup; the bar is no reason to stop
                self._describe()
                self._bar.refresh()

    def _describe(self) -> None:
        done = self._total - len(self._left)
        self._bar.set_description_str(f"{done}/{self._total} tasks", refresh=False)
        left = f", {duration(self.seconds_left())} left" if self._left else ""
        self._bar.set_postfix_str(f"{left}{self._now()}".lstrip(", "), refresh=False)

    def _now(self) -> str:
        if self._waiting:
            return f": waiting for {self._waiting} tasks that other processes compute"
        owners = self._running.owners()
        labels = [owner.label for key, owner in owners.items() if key in self._left]
        more = f" and {len(labels) - LABELS} more" if len(labels) > LABELS else ""
        return f": {'; '.join(labels[:LABELS])}{more}" if labels else ""


def duration(seconds: float) -> str:
    """Time as people say it: ``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def plan_text(groups: Sequence[Group], memory: int | None) -> str:
    """What runs side by side, and why fewer tasks than cores if memory is the reason."""
    lines = []
    for group in groups:
        largest = max(task.memory() for task in group.tasks)
        threads = f"{group.threads} thread{'s' * (group.threads > 1)}"
        count = f"{len(group.tasks)} task{'s' * (len(group.tasks) > 1)}"
        lines.append(
            f"{count}, {group.jobs} at a time, {threads} each, at most {size_text(largest)} each"
        )
        if memory is not None and largest > memory:
            lines.append(
                f"a task is predicted to need {size_text(largest)}, more than the "
                f"{size_text(memory)} allowed: it runs alone"
            )
    return "\n".join(lines)


def interrupted_text(finished: int, total: int) -> str:
    """After Ctrl-C."""
    return (
        f"\ninterrupted: {finished} of {total} tasks are finished and kept; the same command goes "
        "on after them"
    )


def failures_text(failed: Mapping[str, Failure], total: int, folder: Path) -> str:
    """Which tasks have no result."""
    lines = [f"{len(failed)} of {total} tasks failed:"]
    shown = list(failed.values())[:FAILURES_SHOWN]
    lines += [f"  {failure.label}: {failure.line}" for failure in shown]
    if len(failed) > len(shown):
        lines.append(f"  … and {len(failed) - len(shown)} more")
    lines.append(f"tracebacks are in {folder}; the same command tries these tasks again")
    return "\n".join(lines)
