"""Processes of this machine, through joblib's loky."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from decomposition.resources import cores
from decomposition.study.pools.interface import Lost
from decomposition.study.worker import Job, Report, execute

WATCH_SECONDS = 1.0
"""Between two looks whether the driver lives."""


class LokyPool:
    """Workers that start with the first jobs; loky ends all of them when one is killed."""

    def __enter__(self) -> LokyPool:
        """Nothing to start yet."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the workers; a job that still runs is killed."""
        self.stop()

    def size(self) -> tuple[int, int]:
        """This machine's cores, divided among the jobs."""
        return cores(), 0

    def run(self, jobs: Sequence[Job], limit: int) -> Iterator[Report | Lost]:
        """Hand out jobs one by one; if a worker dies, all that were handed out are Lost."""
        if not jobs:
            return
        out: dict[str, None] = {}

        def handed_out() -> Iterator[object]:
            for job in jobs:
                out[job.key] = None
                yield delayed(_execute)(job)

        # with one worker joblib would compute in this process, which must survive its jobs
        workers = max(2, limit)
        watched: dict[str, Any] = {"initializer": _watch, "initargs": (os.getpid(),)}
        threads = jobs[0].threads
        with parallel_config("loky", n_jobs=workers, inner_max_num_threads=threads, **watched):
            options: dict[str, Any] = {"batch_size": 1, "pre_dispatch": limit}
            parallel = Parallel(return_as="generator_unordered", **options)
            try:
                reports: Any = parallel(handed_out())
                for report in reports:
                    del out[report.key]
                    yield report
            except BrokenProcessPool as error:  # joblib's TerminatedWorkerError is one
                yield from [Lost(key, error) for key in out]

    def stop(self) -> None:
        """Kill the workers."""
        options: dict[str, Any] = {"reuse": True}  # typed as str by joblib
        get_reusable_executor(**options).shutdown(wait=True, kill_workers=True)


def _execute(job: Job) -> Report:
    """Finish the job and keep its result even if the driver is killed, and then end too."""
    with _at_work:
        return execute(job)


_at_work = threading.Lock()
"""Held while a job is computed."""


def _watch(driver: int) -> None:
    """This process, a worker, ends within seconds of its driver's death, unless it computes."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(WATCH_SECONDS)
        _let_go_of_the_output()
        with _at_work:
            os._exit(0)

    threading.Thread(target=watch, name="driver's watch", daemon=True).start()


def _let_go_of_the_output() -> None:
    """Whoever reads what the driver has written waits for the last process that could write."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nothing, stream)
