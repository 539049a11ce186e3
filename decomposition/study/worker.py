"""What a worker does with one task: take it, compute it, keep the result, report in a few words.

Results go from the worker to the store, never through the process that drives the study; so the
folder has to be one that both see.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from threadpoolctl import threadpool_limits

from decomposition.errors import StoreError, StudyError
from decomposition.resources import size_text
from decomposition.study.running import Owner, RunningTasks
from decomposition.study.store import CellStore, Failure, Timing
from decomposition.study.task import Task

DEATHS_ALLOWED = 1
VISIBLE_WITHIN = 5.0
"""Seconds that a network file system may take to show a new file."""

log = logging.getLogger(__name__)

# Thread counts, the working directory and torch's generator belong to the process: a worker that
# is handed several tasks at once computes them one after the other.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Job:
    """A task on its way to a worker."""

    task: Task
    key: str
    folder: Path
    threads: int
    run: str
    """The run that it belongs to."""
    since: float
    """When that run began, in seconds since 1970: failures from then on are not tried again."""
    directory: str
    """Working directory of the driving process: what relative paths in the task are relative to."""


@dataclass(frozen=True)
class Report:
    """What comes back."""

    key: str
    state: Literal["done", "reused", "busy", "failed", "elsewhere"]
    """Computed in this run; found in the store; computed by another run now; failed; or not
    attempted, since the worker does not see the study's folder."""
    host: str
    seconds: float = 0.0
    failure: Failure | None = None


def execute(job: Job) -> Report:
    """Compute the job's task unless it is there, running, or deadly; keep and report the outcome.

    Raises nothing that the task or the folder does, only KeyboardInterrupt.
    """
    with _one_at_a_time:
        if not _sees(job.folder, job.run):
            return Report(job.key, "elsewhere", platform.node())
        try:
            store, running = CellStore(job.folder), RunningTasks(job.folder)
            held = running.take(job.key, job.task.label, job.run)
            if held is None:
                return Report(job.key, "busy", platform.node())
            with held:
                return _attempt(job, store, held.owner)
        except (OSError, StoreError) as error:
            failure = Failure.of(job.task.label, error, 0.0)
            return Report(job.key, "failed", failure.host, 0.0, failure)


def _attempt(job: Job, store: CellStore, owner: Owner) -> Report:
    started = time.perf_counter()
    try:
        if store.has(job.key):
            timing = store.timing(job.key)
            mine = timing is not None and timing.run == job.run
            return Report(job.key, "done" if mine else "reused", owner.host)
        known = store.failure(job.key)
        if known is not None and known.time > job.since:  # another run has just tried
            return Report(job.key, "failed", known.host, known.seconds, known)
        if owner.deaths > DEATHS_ALLOWED:
            raise StudyError(
                f"the process that computed this was killed {owner.deaths} times; if memory ran "
                f"out ({size_text(job.task.memory())} were predicted), give --memory or "
                "fewer --jobs"
            )
        with _surroundings(job.directory, job.threads):
            if job.task.key() != job.key:
                raise StudyError(
                    f"the worker on {owner.host} has another version of this package, of torch, "
                    "NumPy or SciPy, or of the data: install the same on every machine"
                )
            tree = job.task.compute(job.folder, job.threads)
        seconds = time.perf_counter() - started
        # the timing goes first: a result that is there has one
        store.save_timing(job.key, Timing(seconds, owner.host, time.time(), job.run))
        store.save(job.key, tree)
        store.clear_failure(job.key)
        return Report(job.key, "done", owner.host, seconds)
    except (Exception, SystemExit) as error:
        seconds = time.perf_counter() - started
        failure = Failure.of(job.task.label, error, seconds)
        try:
            store.save_failure(job.key, failure)
        except StoreError as refused:
            log.warning("the failure of %s cannot be kept: %s", job.task.label, refused)
        return Report(job.key, "failed", owner.host, seconds, failure)


@contextlib.contextmanager
def _surroundings(directory: str, threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        if os.path.isdir(directory):
            stack.enter_context(contextlib.chdir(directory))
        stack.enter_context(threadpool_limits(threads))
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _sees(folder: Path, run: str) -> bool:
    if not folder.is_dir():
        return False
    deadline = time.monotonic() + VISIBLE_WITHIN
    while not RunningTasks(folder).announced(run):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
