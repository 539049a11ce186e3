"""Which engine runs a study's tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from decomposition.checks import Rule, check_fields, one_of, optional, text, whole
from decomposition.study.failure import StudyError
from decomposition.study.pools import Pool

Engine = Literal["loky", "dask", "ray", "sequential"]
RULES: dict[str, Rule] = {
    "name": one_of(*get_args(Engine)),
    "jobs": optional(whole(1)),
    "address": optional(text),
    "threads": optional(whole(1)),
}
"""What each field of a Backend may be."""


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

    def pool(self) -> Pool:
        """The engine, to be used as a context manager; only its own library is imported."""
        if self.name == "dask":
            from decomposition.study.pools.dask import DaskPool

            return DaskPool(self.address, self.jobs, self.threads)
        if self.name == "ray":
            from decomposition.study.pools.ray import RayPool

            return RayPool(self.address, self.jobs, self.threads)
        if self.name == "sequential":
            from decomposition.study.pools.sequential import SequentialPool

            return SequentialPool()
        from decomposition.study.pools.loky import LokyPool

        return LokyPool()
