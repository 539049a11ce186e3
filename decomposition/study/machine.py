"""What this machine offers, and which of its processes are alive."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


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
