"""One job after the other, in this process: for debugging, and where processes are not allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decomposition.resources import cores
from decomposition.study.worker import Job, Report, execute


class SequentialPool:
    """No workers."""

    def __enter__(self) -> SequentialPool:
        """Nothing to start."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to stop."""

    def size(self) -> tuple[int, int]:
        """All cores for one job."""
        return cores(), cores()

    def run(self, jobs: Sequence[Job], limit: int) -> Iterator[Report]:
        """Each in turn."""
        del limit
        yield from map(execute, jobs)

    def stop(self) -> None:
        """An interruption reaches the job itself."""
