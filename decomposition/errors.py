"""The errors a user can meet: each names the value, the place and the way out.

The command line prints them as one message; a traceback means a defect of ours.
"""


class DecompositionError(Exception):
    """Base of every error that this package raises on purpose.

    Those about a value that was given are also a ``ValueError``; one about memory is a
    ``MemoryError``.
    """


class ProblemError(DecompositionError, ValueError):
    """The data, the loss or the recipe cannot be studied as given."""


class UnsupportedModelError(DecompositionError, ValueError):
    """The model contains something that the chain has no exact curvature for."""


class DampingError(DecompositionError, ValueError):
    """A damping value, or a curvature that it leaves singular, cannot be inverted."""


class NonFiniteError(DecompositionError, ValueError):
    """A matrix has an entry that is NaN or infinite."""


class ResultFileError(DecompositionError, ValueError):
    """A result file is missing, truncated, foreign, or of another schema."""


class StoreError(DecompositionError):
    """The output folder cannot be written, or what it holds cannot be read."""


class StudyError(DecompositionError):
    """The tasks, the folder or the backend of a study do not fit together."""
