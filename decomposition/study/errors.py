"""What can stop a study; what stops one task only is kept as its ``Failure``."""

from __future__ import annotations

from decomposition.errors import DecompositionError


class StudyError(DecompositionError):
    """The tasks, the folder or the backend of a study do not fit together."""
