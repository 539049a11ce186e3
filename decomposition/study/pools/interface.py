"""What every engine offers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from decomposition.study.worker import Job, Report


@dataclass(frozen=True)
class Lost:
    """A job that was running, or waiting on a worker, when the worker died."""

    key: str
    error: BaseException


class Pool(AbstractContextManager["Pool"], Protocol):
    """Workers of one engine, from ``__enter__`` to ``__exit__``."""

    def size(self) -> tuple[int, int]:
        """Processor cores that workers share, and threads of a job if the user gives none (0: the
        cores divided by the jobs)."""
        ...

    def run(self, jobs: Sequence[Job], limit: int) -> Iterator[Report | Lost]:
        """Outcomes in the order in which they come, with at most ``limit`` jobs running at once.

        After a Lost, jobs may be left without an outcome: the caller hands them in again.
        """
        ...

    def stop(self) -> None:
        """Stop the workers' present jobs as far as the engine can."""
        ...
