"""Find the inputs and targets among the arrays of a NumPy .npz file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from decomposition.array_files import Archive, ArrayFileError, read_archive
from decomposition.errors import ProblemError
from decomposition.problems.options import Spec, file_of

NUMBERS = "iufb"
"""Kinds of NumPy types that can be inputs: integers, floats, yes or no."""
LABELS = "iufbUS"
"""Kinds that can be targets."""
TRAIN, QUERY = ("x", "y"), ("x_query", "y_query")
USUAL = {
    "x": ("x", "x_train"),
    "y": ("y", "y_train"),
    "x_query": ("x_query", "x_test"),
    "y_query": ("y_query", "y_test"),
}
"""Option → the names that an array has where none is given."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Inputs (n, …) and targets (n,) or (n, C), with the names they have in the file."""

    path: str
    x_name: str
    y_name: str
    x: np.ndarray
    y: np.ndarray
    query: tuple[np.ndarray, np.ndarray] | None
    """Query inputs and targets; None: the file has none."""


def read_arrays(spec: Spec, path: str) -> Arrays:
    """The arrays that the options name, or those of the usual names.

    Raises:
        ProblemError: the file cannot be read, an array is absent, is not numeric or finite, or
            does not fit the others.
    """
    choices = {
        option: (spec.options[option],) if option in spec.options else names
        for option, names in USUAL.items()
    }
    archive = _read(path, set().union(*choices.values()))
    x_name, y_name = (_name(archive, path, option, choices[option]) for option in TRAIN)
    x, y = _pair(archive.arrays, path, x_name, y_name)
    query = None
    if any(o in spec.options or {*choices[o]} & {*archive.names} for o in QUERY):
        names = [_name(archive, path, option, choices[option]) for option in QUERY]
        query = _pair(archive.arrays, path, *names)
        for name, own, other in zip(names, (x, y), query, strict=True):
            if own.shape[1:] != other.shape[1:]:
                raise ProblemError(
                    f"{path}: a row of {name} has shape {other.shape[1:]}, a training row "
                    f"{own.shape[1:]}"
                )
    return Arrays(path, x_name, y_name, x, y, query)


def _read(path: str, wanted: Collection[str]) -> Archive:
    try:
        return read_archive(file_of(path, "NPZ file"), wanted)
    except ArrayFileError as error:
        raise ProblemError(
            f"{path} is not a whole NPZ file of plain arrays ({error}): write it again with "
            "numpy.savez"
        ) from error


def _name(archive: Archive, path: str, option: str, wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in archive.arrays:
            return name
    raise ProblemError(
        f"{path} has no array {' or '.join(wanted)}; it has {', '.join(archive.names) or 'none'}: "
        f"name one with {option}=…"
    )


def _pair(
    found: dict[str, np.ndarray], path: str, x_name: str, y_name: str
) -> tuple[np.ndarray, np.ndarray]:
    x, y = found[x_name], found[y_name]
    if x.ndim < 2 or x.dtype.kind not in NUMBERS:
        raise ProblemError(
            f"{path}: {x_name} must hold numbers of shape (rows, features, …), got {x.dtype} of "
            f"shape {x.shape}"
        )
    if y.dtype.kind not in LABELS:
        raise ProblemError(
            f"{path}: {y_name} must hold numbers or words, got {y.dtype} (dates and records are "
            "neither: save numbers)"
        )
    if y.ndim not in (1, 2) or len(x) != len(y):
        raise ProblemError(
            f"{path}: {y_name} must be ({len(x)},) or ({len(x)}, outputs) to go with {x_name}, "
            f"got {y.shape}"
        )
    if x.size == 0 or y.size == 0:
        raise ProblemError(f"{path}: {x_name} {x.shape} or {y_name} {y.shape} is empty")
    for name, array in ((x_name, x), (y_name, y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            place = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
            raise ProblemError(
                f"{path}: {name}[{', '.join(map(str, place))}] is {array[place]}: drop that row or "
                "fill it in"
            )
    return x, y
