"""What runs a study's tasks: this process, local processes, a Dask cluster or a Ray cluster.

Every engine is an Executor: it hands jobs to workers and says which are finished.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool
from tqdm import tqdm

from decomposition.checks import Rule, check_fields, one_of, optional, text, whole
from decomposition.errors import StudyError
from decomposition.resources import cores
from decomposition.study.worker import DEATHS_ALLOWED, Job, Report, execute

Engine = Literal["loky", "dask", "ray", "sequential"]
RULES: dict[str, Rule] = {
    "name": one_of(*get_args(Engine)),
    "jobs": optional(whole(1)),
    "address": optional(text),
    "threads": optional(whole(1)),
}
"""What each field of a Backend may be."""
WATCH_SECONDS = 1.0
"""Between two looks of a local worker whether its driver lives."""
IDLE_SECONDS = 300
"""After which a local worker without a job ends."""
CONNECT_SECONDS = 30
PATIENCE = 60.0
"""Seconds after which a Dask cluster without workers is mentioned."""
NO_WORKERS = "the Dask cluster has no workers: waiting for them"
LOST_WORKER = "distributed.deploy.lost-worker-timeout"


@dataclass(frozen=True)
class Backend:
    """An engine and its size; see docs/scaling.md.

    Raises:
        StudyError: an unknown engine, a number below one, an address for a local engine.
    """

    name: Engine = "loky"
    """Processes of this machine (loky), a Dask or a Ray cluster, or this process."""
    jobs: int | None = None
    """Most tasks at once; default as many as cores and memory, or the cluster's workers, allow."""
    address: str | None = None
    """Of the cluster; without one, dask and ray start a cluster of this machine's processes."""
    threads: int | None = None
    """Threads of each task; default cores // jobs, or those of a Dask worker, or 1 on Ray."""

    def __post_init__(self) -> None:
        """Check once."""
        check_fields(self, RULES, StudyError)
        if self.address is not None and not self.cluster:
            raise StudyError(f"an address goes with dask or ray, not with {self.name}")

    @property
    def cluster(self) -> bool:
        """Whether workers are those of a cluster, which looks after its own memory."""
        return self.name in ("dask", "ray")

    def executor(self) -> Executor:
        """The engine, to be used as a context manager; only its own library is imported."""
        kinds = {"dask": DaskExecutor, "ray": RayExecutor, "loky": LokyExecutor}
        return kinds.get(self.name, SequentialExecutor)(self)


@dataclass(frozen=True)
class Lost:
    """A job that was running, or waiting on a worker, when the worker died."""

    key: str
    error: BaseException


class Executor(contextlib.AbstractContextManager["Executor"], ABC):
    """Workers of one engine, from ``__enter__`` to ``__exit__``."""

    losses: tuple[type[BaseException], ...] = ()
    """What ``result`` raises when a worker has died."""
    together = False
    """Whether one worker's death ends the others too."""

    def __init__(self, backend: Backend) -> None:
        """Nothing is started yet."""
        self.backend = backend
        self.running: dict[Any, Job] = {}
        """What ``submit`` has returned → the job."""

    def __exit__(self, *exception: object) -> None:
        """Stop what still runs."""
        self.stop()

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Processor cores that workers share, and threads of a job if the user gives none (0: the
        cores divided by the jobs)."""

    @abstractmethod
    def submit(self, job: Job) -> Any:
        """Hand a job to a worker; something hashable to ask for its result by."""

    @abstractmethod
    def finished(self) -> Iterable[Any]:
        """Wait until some of ``running`` are finished, or lost: which."""

    @abstractmethod
    def result(self, handle: Any) -> Report:
        """The outcome of what is finished."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the workers' present jobs as far as the engine can."""

    def run(self, jobs: Sequence[Job], limit: int) -> Iterator[Report | Lost]:
        """Outcomes in the order in which they come, with at most ``limit`` jobs running at once.

        After a Lost, jobs may be left without an outcome: the caller hands them in again.
        """
        waiting = iter(jobs)
        while True:
            for job in islice(waiting, limit - len(self.running)):
                self.running[self.submit(job)] = job
            if not self.running:
                return
            for handle in self.finished():
                job = self.running.pop(handle)
                try:
                    yield self.result(handle)
                except self.losses as error:
                    yield Lost(job.key, error)
                    if self.together:
                        waiting = iter(())


class SequentialExecutor(Executor):
    """One job after the other, in this process: for debugging, and where processes are not
    allowed."""

    def size(self) -> tuple[int, int]:
        """All cores for one job."""
        return cores(), cores()

    def submit(self, job: Job) -> Report:
        """Compute it."""
        return execute(job)

    def finished(self) -> list[Report]:
        """What was submitted."""
        return list(self.running)

    def result(self, handle: Report) -> Report:
        """It is there."""
        return handle

    def stop(self) -> None:
        """An interruption reaches the job itself."""


class LokyExecutor(Executor):
    """Processes of this machine; joblib's loky ends all of them when one is killed."""

    losses = (BrokenProcessPool,)
    together = True
    limit = 1
    """Workers: as many as jobs at once, since an idle one keeps the memory of its last job."""

    def size(self) -> tuple[int, int]:
        """This machine's cores, divided among the jobs."""
        return cores(), 0

    def run(self, jobs: Sequence[Job], limit: int) -> Iterator[Report | Lost]:
        """See Executor."""
        self.limit = limit
        return super().run(jobs, limit)

    def submit(self, job: Job) -> Any:
        """To a worker, which starts with the first of the jobs."""
        with contextlib.suppress(BrokenProcessPool):
            return self._pool().submit(_execute_locally, job)
        return self._pool().submit(_execute_locally, job)  # it had just broken; this is another

    def _pool(self) -> Any:
        options: dict[str, Any] = {"initializer": _watch, "initargs": (os.getpid(),)}
        return get_reusable_executor(self.limit, timeout=IDLE_SECONDS, **options)

    def finished(self) -> Iterable[Any]:
        """See Executor."""
        return concurrent.futures.wait(self.running, return_when="FIRST_COMPLETED").done

    def result(self, handle: Any) -> Report:
        """See Executor."""
        return handle.result()

    def stop(self) -> None:
        """Kill the workers."""
        self.running.clear()
        options: dict[str, Any] = {"reuse": True}  # typed as str by joblib
        get_reusable_executor(**options).shutdown(wait=True, kill_workers=True)


class DaskExecutor(Executor):
    """The cluster at the backend's address, or one of this machine's processes if there is none.

    Futures rather than joblib's Dask backend: that one sends batches and fails as a whole with a
    lost worker, while a future is run again by the scheduler, and tells which task was lost for
    good.

    Raises:
        StudyError: Dask is not installed, or no scheduler answers.
    """

    losses = (Exception,)  # a job's own errors are in its report
    _client: Any = None

    def __enter__(self) -> DaskExecutor:
        """Connect, or start a cluster of this machine's cores."""
        try:
            from dask import config
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise StudyError(
                "--backend dask needs Dask: pip install 'curvature-decomposition[dask]'"
            ) from error
        self._stack = contextlib.ExitStack()
        target = self.backend.address
        if target is None:
            # a cluster gives up a worker that takes longer to come back
            self._stack.enter_context(config.set({LOST_WORKER: "10 minutes"}))
            count = self.backend.jobs or max(1, cores() // (self.backend.threads or 1))
            options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
            target = self._stack.enter_context(LocalCluster(n_workers=count, **options))
        try:
            client = Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise StudyError(
                f"no Dask scheduler answers at {self.backend.address} ({error or 'time out'}): "
                "give the address that `dask scheduler` or cluster.scheduler_address shows, such "
                "as --address tcp://host:8786"
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
        threads = self.backend.threads or min(nthreads)
        return threads * len(nthreads), threads

    def submit(self, job: Job) -> Any:
        """To the scheduler."""
        name = f"{job.task.kind}-{job.key[:12]}-{uuid.uuid4().hex[:8]}"
        return self._client.submit(_execute_under_dask, job, key=name, pure=False)

    def finished(self) -> Iterable[Any]:
        """See Executor; a cluster without workers is mentioned."""
        from distributed import wait

        while True:
            try:
                with self._client.as_current():
                    first: Any = wait([*self.running], PATIENCE, return_when="FIRST_COMPLETED")
                return first.done
            except TimeoutError:
                if not self._client.nthreads():
                    tqdm.write(NO_WORKERS, sys.stderr)

    def result(self, handle: Any) -> Report:
        """See Executor."""
        return handle.result()

    def stop(self) -> None:
        """Take back what waits; a worker finishes the job it has begun, and keeps its result."""
        if self.running:
            self._client.cancel(list(self.running))
            self.running.clear()


class RayExecutor(Executor):
    """The cluster at the address, the one that Ray finds by itself, or one of this machine.

    Remote tasks rather than Ray's joblib backend, for the reason given for Dask: a lost worker
    costs the one task that it ran, and Ray runs it again.

    Raises:
        StudyError: Ray is not installed, no cluster answers, or no node has enough processors.
    """

    _ray: Any = None
    _mine = False

    def __enter__(self) -> RayExecutor:
        """Connect, unless this process is connected already."""
        try:
            import ray
        except ImportError as error:
            raise StudyError(
                "--backend ray needs Ray: pip install 'curvature-decomposition[ray]'"
            ) from error
        self._ray = ray
        self.losses = (self._ray.exceptions.RayError,)
        self.threads, address = self.backend.threads or 1, self.backend.address
        if not ray.is_initialized():
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
            if address is None and self.backend.jobs is not None:
                options["num_cpus"] = self.backend.jobs * self.threads
            try:
                ray.init(address, **options)
            except (OSError, RuntimeError, ValueError) as error:
                raise StudyError(
                    f"no Ray cluster answers at {address} ({error}): give --address auto on "
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
        """Disconnect, if it was here that the process was connected."""
        self.stop()
        if self._mine:
            self._ray.shutdown()

    def size(self) -> tuple[int, int]:
        """The cluster's processors, and the threads of a job."""
        return int(self._ray.cluster_resources().get("CPU", 1)), self.threads

    def submit(self, job: Job) -> Any:
        """As a remote task on the job's number of processors."""
        options = {"num_cpus": job.threads, "max_retries": DEATHS_ALLOWED + 1}
        return self._ray.remote(**options)(execute).remote(job)

    def finished(self) -> Iterable[Any]:
        """See Executor."""
        return self._ray.wait(list(self.running), num_returns=1)[0]

    def result(self, handle: Any) -> Report:
        """See Executor."""
        return self._ray.get(handle)

    def stop(self) -> None:
        """Interrupt what runs and take back what waits."""
        for reference in self.running:
            with contextlib.suppress(*self.losses):
                self._ray.cancel(reference)
        self.running.clear()


def _execute_under_dask(job: Job) -> Report:
    """Without the cluster: xarray would ask it for a lock on every file that a task opens."""
    from dask import config

    with config.set(scheduler="threads"):
        return execute(job)


def _execute_locally(job: Job) -> Report:
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
