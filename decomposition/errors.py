"""The errors a user can meet: each names the value, the place and the way out.

The command line prints them as one message; a traceback means a defect of ours.
"""


class DecompositionError(ValueError):
    """Base of every error that this package raises on purpose."""


class ProblemError(DecompositionError):
    """The data, the loss or the recipe cannot be studied as given."""


class UnsupportedModelError(DecompositionError):
    """The model contains something that the chain has no exact curvature for."""


class DampingError(DecompositionError):
    """A damping value, or a curvature that it leaves singular, cannot be inverted."""


class NonFiniteError(DecompositionError):
    """A matrix has an entry that is NaN or infinite."""


class ResultFileError(DecompositionError):
    """A result file is missing, truncated, foreign, or of another schema."""


class StoreError(DecompositionError):
    """The output folder cannot be written, or what it holds cannot be read."""
