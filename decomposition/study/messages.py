"""What a running study says on stderr, beside its progress bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from decomposition.resources import size_text
from decomposition.study.failure import Failure
from decomposition.study.groups import Group

FAILURES_SHOWN = 10


def plan_text(groups: Sequence[Group], memory: int | None) -> str:
    """What runs side by side, and why fewer tasks than cores if memory is the reason."""
    lines = []
    for group in groups:
        largest = max(task.memory() for task in group.tasks)
        threads = f"{group.threads} thread{'s' * (group.threads > 1)}"
        count = f"{len(group.tasks)} task{'s' * (len(group.tasks) > 1)}"
        lines.append(
            f"{count}, {group.jobs} at a time, {threads} each, at most {size_text(largest)} each"
        )
        if memory is not None and largest > memory:
            lines.append(
                f"a task is predicted to need {size_text(largest)}, more than the "
                f"{size_text(memory)} allowed: it runs alone"
            )
    return "\n".join(lines)


def interrupted_text(finished: int, total: int) -> str:
    """After Ctrl-C."""
    return (
        f"\ninterrupted: {finished} of {total} tasks are finished and kept; the same command goes "
        "on after them"
    )


def failures_text(failed: Mapping[str, Failure], total: int, folder: Path) -> str:
    """Which tasks have no result."""
    lines = [f"{len(failed)} of {total} tasks failed:"]
    shown = list(failed.values())[:FAILURES_SHOWN]
    lines += [f"  {failure.label}: {failure.line}" for failure in shown]
    if len(failed) > len(shown):
        lines.append(f"  … and {len(failed) - len(shown)} more")
    lines.append(f"tracebacks are in {folder}; the same command tries these tasks again")
    return "\n".join(lines)
