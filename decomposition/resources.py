"""Processor cores and memory that a computation may use."""

from __future__ import annotations

from pathlib import Path

import joblib

from decomposition.checks import checked, number, optional
from decomposition.errors import DecompositionError

GIB = 1 << 30
FRACTION = 0.75
"""Of the free memory that is taken unless told otherwise."""
_FALLBACK = 4 << 30
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def bytes_of(gib: object) -> int | None:
    """A user's limit of memory; None: it is to be chosen.

    Raises:
        DecompositionError: not a number above zero.
    """
    found = checked("memory, in GiB,", gib, optional(number(0, above=True)), DecompositionError)
    return None if found is None else int(found * GIB)


def size_text(size: float) -> str:
    """Bytes as people say them, in MiB below 1 GiB: ``20.5 MiB``, ``1.50 GiB``, ``79,104 GiB``."""
    unit, name = (2**30, "GiB") if size >= 2**30 else (2**20, "MiB")
    digits = 2 if size < 10 * unit else 1 if size < 1000 * unit else 0
    return f"{size / unit:,.{digits}f} {name}"


def cores() -> int:
    """Processor cores that this process may use."""
    return joblib.cpu_count()


def free_memory() -> int:
    """Bytes that can still be used on this machine, or in this container."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except OSError:
        pass
    for limit, used in _CGROUPS:
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue  # no such control group, or one without a limit
    return max(1, min(found)) if found else _FALLBACK


def duration(seconds: float) -> str:
    """A time as people say it, to about two digits."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "< 1 ms"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
