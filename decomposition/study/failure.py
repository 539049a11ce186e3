"""What stops a whole study, and what stops one task and is kept so that the others go on."""

from __future__ import annotations

import platform
import time
import traceback
from dataclasses import dataclass

from decomposition.errors import DecompositionError


class StudyError(DecompositionError):
    """The tasks, the folder or the backend of a study do not fit together."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    label: str
    """The task, for people."""
    error: str
    """Type of the error, such as ``MemoryError``."""
    message: str
    """What the error says."""
    traceback: str
    """Where it was raised."""
    host: str
    """On which machine."""
    time: float
    """When, in seconds since 1970."""
    seconds: float
    """How long the task had run."""

    @property
    def line(self) -> str:
        """Type and first line of the message."""
        first = next(iter(self.message.strip().splitlines()), "")
        return f"{self.error}: {first}" if first else self.error

    @classmethod
    def of(cls, label: str, error: BaseException, seconds: float) -> Failure:
        """The failure that ``error`` is, on this machine, now."""
        text = "".join(traceback.format_exception(error))
        name = type(error).__qualname__
        return cls(label, name, str(error), text, platform.node(), time.time(), seconds)
