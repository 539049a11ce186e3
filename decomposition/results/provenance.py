"""Where a result comes from: command, configuration, versions, hardware, seeds, time."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from decomposition.results.schema import SCHEMA_VERSION

DISTRIBUTION = "curvature-decomposition"
PACKAGES = ("torch", "numpy", "scipy", "xarray", "h5netcdf", "matplotlib", "scikit-learn")
"""Packages whose version can change a number or a figure."""


def provenance(
    *,
    problem: str,
    config: Mapping[str, object],
    seeds: Mapping[str, object],
    parameters: int,
    examples: int,
    queries: int,
    notes: Iterable[str] = (),
    timings: Mapping[str, float] | None = None,
    command: str | None = None,
    device: str = "cpu",
    dtype: str = "float64",
    ci_level: float = 0.95,
) -> dict[str, str | int | float]:
    """The attributes of a result's root, as ``results/schema`` lists them.

    Args:
        problem: name of the problem.
        config: everything that determines the result; values JSON can hold, or their ``str``.
        seeds: purpose → seed.
        parameters: P.
        examples: N.
        queries: number of queries.
        notes: warnings to show to the reader of the report.
        timings: stage → seconds.
        command: what to type to make the result again; default the command line of this process.
        device: where the run computed.
        dtype: precision of the curvature.
        ci_level: level of every interval in the result.
    """
    return {
        **origin(config=config, notes=notes, command=command, ci_level=ci_level),
        "schema_version": SCHEMA_VERSION,
        "device": device,
        "dtype": dtype,
        "seeds": _json(seeds),
        "problem": problem,
        "parameters": int(parameters),
        "examples": int(examples),
        "queries": int(queries),
        "timings": _json({k: round(float(v), 3) for k, v in (timings or {}).items()}),
    }


def origin(
    *,
    config: Mapping[str, object],
    notes: Iterable[str] = (),
    command: str | None = None,
    ci_level: float = 0.95,
) -> dict[str, str | int | float]:
    """The attributes that any file of this package has: when, by what, with what, on what.

    Args:
        config, notes, command, ci_level: as for ``provenance``.
    """
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "library_version": _version(DISTRIBUTION),
        "command": command if command is not None else command_line(),
        "config": _json(config),
        "versions": _json(versions()),
        "ci_level": float(ci_level),
        "notes": _json(list(notes)),
        "hardware": _json(hardware()),
    }


def versions() -> dict[str, str]:
    """Package → version, with Python first."""
    found = {"python": platform.python_version()}
    return found | {name: _version(name) for name in PACKAGES}


def hardware() -> dict[str, str | int]:
    """Processor, usable cores, memory in GiB, operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": cores or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        found["memory_gib"] = round(pages * size / 2**30)
    return found


def command_line() -> str:
    """The command line of this process, quoted for a shell."""
    program = Path(sys.argv[0]).name or "python"
    return shlex.join([program, *sys.argv[1:]])


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _json(value: object) -> str:
    text = json.dumps(value, default=str, sort_keys=isinstance(value, dict), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode(
        "utf-8"
    )  # halves of surrogates, in a model's repr
