"""Several stacks at a time, each on a thread of its own with single-threaded products.

A stack's products are too small to share between threads, and single-threaded ones give the same
bits whatever the number of cores. Torch releases the interpreter lock inside every operation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

Job = TypeVar("Job")


class Cancelled(Exception):
    """Another job has failed or the user has interrupted; this one gives up."""


def in_parallel(
    work: Callable[[Job, Callable[[], None]], None],
    jobs: Sequence[Job],
    done: Callable[[Job], object],
    most: int | None = None,
) -> None:
    """Run ``work(job, check)`` for all jobs on ``torch.get_num_threads()`` threads, or ``most``.

    ``check()`` raises Cancelled once any job has failed or the user has interrupted; ``done`` is
    called in the calling thread after each job. The first error is raised again here.
    """
    if not jobs:
        return
    threads, stop = torch.get_num_threads(), threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Cancelled

    count = min(threads, len(jobs), most or threads)
    pool = ThreadPoolExecutor(count, "retraining", torch.set_num_threads, (1,))
    futures = {pool.submit(work, job, check): job for job in jobs}
    try:
        for future in as_completed(futures):
            future.result()
            done(futures.pop(future))
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # the setting is partly per process
