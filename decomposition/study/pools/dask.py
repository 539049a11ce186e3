"""Workers of a Dask cluster.

Futures rather than joblib's Dask backend: that one sends batches and fails as a whole with a lost
worker, while a future is run again by the scheduler, and tells which task was lost for good.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from tqdm import tqdm

from decomposition.resources import cores
from decomposition.study.failure import StudyError
from decomposition.study.pools.interface import Lost
from decomposition.study.worker import Job, Report, execute

CONNECT_SECONDS = 30
PATIENCE = 60.0
"""Seconds after which a cluster without workers is mentioned."""
NO_WORKERS = "the Dask cluster has no workers: waiting for them"
LOST_WORKER = "distributed.deploy.lost-worker-timeout"


class DaskPool:
    """The cluster at ``address``, or one of this machine's processes if there is none.

    Raises:
        StudyError: Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str | None, jobs: int | None, threads: int | None) -> None:
        """Connect later."""
        self.address, self.jobs, self.threads = address, jobs, threads
        self._stack = contextlib.ExitStack()
        self._client: Any = None
        self._futures: dict[Any, Job] = {}

    def __enter__(self) -> DaskPool:
        """Connect, or start a cluster of this machine's cores."""
        try:
            from dask import config
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise StudyError(
                "--backend dask needs Dask: pip install 'curvature-decomposition[dask]'"
            ) from error
        target = self.address
        if target is None:
            # a cluster gives up a worker that takes longer to come back
            self._stack.enter_context(config.set({LOST_WORKER: "10 minutes"}))
            count = self.jobs or max(1, cores() // (self.threads or 1))
            options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
            target = self._stack.enter_context(LocalCluster(n_workers=count, **options))
        try:
            client = Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise StudyError(
                f"no Dask scheduler answers at {self.address} ({error or 'time out'}): give the "
                "address that `dask scheduler` or cluster.scheduler_address shows, such as "
                "--address tcp://host:8786"
            ) from error
        self._client = self._stack.enter_context(client)
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect."""
        self.stop()
        self._stack.close()

    def size(self) -> tuple[int, int]:
        """One job per worker process, on as many threads as the worker was started with."""
        try:
            self._client.wait_for_workers(1, PATIENCE)
        except TimeoutError:
            tqdm.write(NO_WORKERS, sys.stderr)
        nthreads = list(self._client.nthreads().values()) or [1]
        threads = self.threads or min(nthreads)
        return threads * len(nthreads), threads

    def run(self, jobs: Sequence[Job], limit: int) -> Iterator[Report | Lost]:
        """Keep ``limit`` jobs on the cluster."""
        from distributed import wait

        waiting = iter(jobs)
        for job in islice(waiting, limit):
            self._submit(job)
        while self._futures:
            try:
                with self._client.as_current():
                    first: Any = wait([*self._futures], PATIENCE, return_when="FIRST_COMPLETED")
            except TimeoutError:
                if not self._client.nthreads():
                    tqdm.write(NO_WORKERS, sys.stderr)
                continue
            for future in first.done:
                job = self._futures.pop(future)
                error = None if future.status == "finished" else future.exception()
                yield future.result() if error is None else Lost(job.key, error)
                for job in islice(waiting, 1):
                    self._submit(job)

    def _submit(self, job: Job) -> None:
        name = f"{job.task.kind}-{job.key[:12]}-{uuid.uuid4().hex[:8]}"
        self._futures[self._client.submit(_execute, job, key=name, pure=False)] = job

    def stop(self) -> None:
        """Take back what waits; a worker finishes the job it has begun, and keeps its result."""
        if self._futures:
            self._client.cancel(list(self._futures))
            self._futures.clear()


def _execute(job: Job) -> Report:
    """Without the cluster: xarray would ask it for a lock on every file that a task opens."""
    from dask import config

    with config.set(scheduler="threads"):
        return execute(job)
