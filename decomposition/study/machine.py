"""What this machine offers, and which of its processes are alive."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import joblib

FRACTION = 0.75
"""Of the free memory that a study takes unless told otherwise."""
_FALLBACK = 4 << 30
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


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


@cache
def machine() -> str:
    """An identity within which process ids mean one thing: this boot, this container."""
    parts = [platform.node()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            continue
    return " ".join(parts)


def birth(pid: int) -> str | None:
    """When process ``pid`` of this machine started, in the kernel's ticks; None if it is gone.

    Ids are used again, the pair of id and birth is not. Without ``/proc``, only the id is known.
    """
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "unknown"
    try:
        # the name in parentheses may itself hold spaces and parentheses
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started
