"""Run the tasks of a study that are missing, whatever happens to the workers."""

from __future__ import annotations

import os
import platform
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decomposition.errors import StoreError, StudyError
from decomposition.study.executors import Backend, Executor, Lost
from decomposition.study.progress import Progress, failures_text, interrupted_text, plan_text
from decomposition.study.running import RunningTasks
from decomposition.study.schedule import Group, only, planned
from decomposition.study.store import CellStore, Failure
from decomposition.study.task import Task
from decomposition.study.worker import Job, Report

LOSSES_ALLOWED = 2
"""Times that a worker may die with a task in hand without a trace of what it did."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of the tasks, by key."""

    done: tuple[str, ...]
    """Computed by this run."""
    reused: tuple[str, ...]
    """Found in the store, or computed by another process in the meantime."""
    failed: Mapping[str, Failure]
    """Tasks without a result, and why."""


def run_tasks(
    tasks: Iterable[Task],
    folder: str | os.PathLike[str],
    *,
    backend: Backend | None = None,
    memory: int | None = None,
    progress: bool = True,
    retry_failed: bool = True,
) -> Outcome:
    """Compute what is missing of ``tasks`` and keep it in ``folder``.

    Killed at any time, the same call goes on where it was. Several processes, on machines that
    share the folder, may run the same study at once: they divide the tasks.

    Args:
        tasks: in any order; lower stages run first, then the longest.
        folder: the study's; workers have to see it under the same path.
        backend: what runs them; default ``Backend()``.
        memory: bytes that running tasks may use together, by their own predictions; default three
            quarters of what is free here, and no bound on a cluster.
        progress: show a progress bar and the plan on stderr.
        retry_failed: try tasks again that an earlier run has seen fail.

    Returns:
        What became of every task. A failing task stops no other; failures are named on stderr.

    Raises:
        StoreError: the folder cannot be used.
        StudyError: the backend cannot be used, or its workers do not see the folder.
        KeyboardInterrupt: after running tasks have been stopped; what is finished is kept.
    """
    backend = backend or Backend()
    by_key = {task.key(): task for task in tasks}
    session = _Session(Path(folder).absolute(), by_key, progress)
    session.look(retry_failed)
    if session.missing:
        with backend.executor() as executor:
            session.run(executor, backend, memory)
    if session.failed:
        text = failures_text(session.failed, len(by_key), session.store.failures)
        print(text, file=sys.stderr)
    return Outcome(tuple(session.done), tuple(session.reused), dict(session.failed))


@dataclass
class _Session:
    """One call of ``run_tasks``."""

    folder: Path
    tasks: Mapping[str, Task]
    show: bool
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: float = field(default_factory=time.time)
    done: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = CellStore(self.folder)
        try:
            self.running = RunningTasks(self.folder)
        except OSError as error:
            raise StoreError(f"the study's folder {self.folder} cannot be used: {error}") from error
        self.keys = {id(task): key for key, task in self.tasks.items()}
        self.missing: dict[str, Task] = {}
        self.losses: Counter[str] = Counter()

    def look(self, retry_failed: bool) -> None:
        """Sort the tasks into those that are there, those given up, and those to be computed."""
        for key, task in self.tasks.items():
            failure = None if retry_failed else self.store.failure(key)
            if self.store.has(key):
                self.reused.append(key)
            elif failure is not None:
                self.failed[key] = failure
            else:
                self.missing[key] = task

    def run(self, executor: Executor, backend: Backend, memory: int | None) -> None:
        """Compute the missing tasks, stage by stage."""
        label = f"{len(self.missing)} tasks on {platform.node()}"
        with self.running.announce(self.name, label):
            size = executor.size()
            everything = planned(self.tasks, self.folder, backend, memory, size)
            groups = only(everything, self.missing.values())
            if self.show:
                print(plan_text(groups, memory), file=sys.stderr)
            unbounded = backend.cluster and backend.jobs is None and memory is None
            with Progress(groups, self.keys, self.running, self.show) as self.progress:
                try:
                    for stage in sorted({group.stage for group in groups}):
                        self._run_stage(
                            [g for g in groups if g.stage == stage], executor, unbounded
                        )
                except BaseException as error:
                    executor.stop()
                    self.running.release_dead(self.name)
                    if isinstance(error, KeyboardInterrupt):
                        finished = len(self.done) + len(self.reused)
                        print(interrupted_text(finished, len(self.tasks)), file=sys.stderr)
                    raise

    def _run_stage(self, groups: Sequence[Group], executor: Executor, unbounded: bool) -> None:
        while groups:
            busy: set[str] = set()
            for group in groups:
                busy |= self._run_group(
                    group, executor, len(group.tasks) if unbounded else group.jobs
                )
            free = self._await(busy)
            groups = only(groups, [self.tasks[key] for key in free])

    def _run_group(self, group: Group, executor: Executor, limit: int) -> set[str]:
        """Compute a group; keys of tasks that other runs compute.

        When a worker dies, what ran beside it may die with it. Those tasks run again one at a
        time, so that the second death leaves no doubt about its cause.
        """
        pending = {job.key: job for job in self._jobs(group)}
        suspects: list[str] = []
        busy: set[str] = set()
        while pending:
            alone = [pending[key] for key in suspects if key in pending]
            suspects, outcomes = [], 0
            for outcome in executor.run(alone or list(pending.values()), 1 if alone else limit):
                outcomes += 1
                if isinstance(outcome, Lost):
                    suspects.append(outcome.key)
                    if not self._lost(outcome):
                        del pending[outcome.key]
                    continue
                del pending[outcome.key]
                if outcome.state == "busy":
                    busy.add(outcome.key)
                else:
                    self._note(outcome)
            if not outcomes:
                raise StudyError(
                    "the workers end before they take a task: see what they print, or try "
                    "--backend sequential"
                )
        return busy

    def _jobs(self, group: Group) -> list[Job]:
        here = os.getcwd()
        return [
            Job(task, self.keys[id(task)], self.folder, group.threads, self.name, self.since, here)
            for task in group.tasks
        ]

    def _note(self, report: Report) -> None:
        if report.state == "elsewhere":
            raise StudyError(
                f"the worker on {report.host} does not see {self.folder}, where results are kept: "
                "give a folder that every machine has under the same path"
            )
        if report.state == "failed":
            assert report.failure is not None
            self.failed[report.key] = report.failure
        else:
            (self.done if report.state == "done" else self.reused).append(report.key)
        self.progress.finish(report.key, report.seconds)

    def _lost(self, lost: Lost) -> bool:
        """Whether a task whose worker died is to be handed out again."""
        self.losses[lost.key] += 1
        if self.losses[lost.key] <= LOSSES_ALLOWED:
            return True
        failure = Failure.of(self.tasks[lost.key].label, lost.error, 0.0)
        self.store.save_failure(lost.key, failure)
        self._note(Report(lost.key, "failed", failure.host, 0.0, failure))
        return False

    def _await(self, busy: set[str]) -> list[str]:
        """Wait for what other runs compute; keys that they have dropped."""
        free: list[str] = []
        while busy and not free:
            self.progress.wait_for(len(busy))
            for key in sorted(busy):
                if self.running.owner(key) is not None:
                    continue
                busy.remove(key)
                failure = self.store.failure(key)
                if self.store.has(key):
                    self._note(Report(key, "reused", ""))
                elif failure is not None and failure.time > self.since:
                    self._note(Report(key, "failed", failure.host, failure.seconds, failure))
                else:
                    free.append(key)
            if busy and not free:
                time.sleep(POLL_SECONDS)
        self.progress.wait_for(0)
        return free + sorted(busy)
