"""Workers of a Ray cluster.

Remote tasks rather than Ray's joblib backend, for the reason given for Dask: a lost worker costs
the one task that it ran, and Ray runs it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from decomposition.study.failure import StudyError
from decomposition.study.pools.interface import Lost
from decomposition.study.worker import DEATHS_ALLOWED, Job, Report, execute


class RayPool:
    """The cluster at ``address``, the one that Ray finds by itself, or one of this machine.

    Raises:
        StudyError: Ray is not installed, no cluster answers, or no node has enough processors.
    """

    def __init__(self, address: str | None, jobs: int | None, threads: int | None) -> None:
        """Connect later."""
        self.address, self.jobs, self.threads = address, jobs, threads or 1
        self._ray: Any = None
        self._mine = False
        self._running: dict[Any, Job] = {}

    def __enter__(self) -> RayPool:
        """Connect, unless this process is connected already."""
        try:
            import ray
        except ImportError as error:
            raise StudyError(
                "--backend ray needs Ray: pip install 'curvature-decomposition[ray]'"
            ) from error
        self._ray = ray
        if not ray.is_initialized():
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
            if self.address is None and self.jobs is not None:
                options["num_cpus"] = self.jobs * self.threads
            try:
                ray.init(self.address, **options)
            except (OSError, RuntimeError, ValueError) as error:
                raise StudyError(
                    f"no Ray cluster answers at {self.address} ({error}): give --address auto on "
                    "one of its nodes, or HOST:6379 of its head"
                ) from error
            self._mine = True
        largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes()), default=0)
        if largest < self.threads:
            raise StudyError(
                f"--threads {self.threads}, but no Ray node has more than {largest:g} processors"
            )
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect, if it was this pool that connected."""
        self.stop()
        if self._mine:
            self._ray.shutdown()

    def size(self) -> tuple[int, int]:
        """The cluster's processors, and the threads of a job."""
        return int(self._ray.cluster_resources().get("CPU", 1)), self.threads

    def run(self, jobs: Sequence[Job], limit: int) -> Iterator[Report | Lost]:
        """Keep ``limit`` jobs on the cluster."""
        if not jobs:
            return
        remote = self._ray.remote(num_cpus=jobs[0].threads, max_retries=DEATHS_ALLOWED + 1)(execute)
        waiting = iter(jobs)
        for job in islice(waiting, limit):
            self._running[remote.remote(job)] = job
        while self._running:
            for reference in self._ray.wait(list(self._running), num_returns=1)[0]:
                job = self._running.pop(reference)
                try:
                    outcome: Report | Lost = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    outcome = Lost(job.key, error)
                yield outcome
                for job in islice(waiting, 1):
                    self._running[remote.remote(job)] = job

    def stop(self) -> None:
        """Interrupt what runs and take back what waits."""
        for reference in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference)
        self._running.clear()
