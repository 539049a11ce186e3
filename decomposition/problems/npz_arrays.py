"""Find the inputs and targets among the arrays of a NumPy .npz file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decomposition.errors import ProblemError
from decomposition.problems.options import Spec, file_of

NUMBERS = "iufb"
"""Kinds of NumPy types that can be inputs: integers, floats, yes or no."""


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
    found = _load(file_of(path, "NPZ file"))
    x_name, y_name = (_name(spec, found, path, part, (part, f"{part}_train")) for part in "xy")
    x, y = _pair(found, path, x_name, y_name)
    query = None
    usual = {part: (f"{part}_query", f"{part}_test") for part in "xy"}
    if {"x_query", "y_query"} & spec.options.keys() or found.keys() & set(usual["x"] + usual["y"]):
        names = [_name(spec, found, path, f"{part}_query", usual[part]) for part in "xy"]
        query = _pair(found, path, *names)
        for name, own, other in zip(names, (x, y), query, strict=True):
            if own.shape[1:] != other.shape[1:]:
                raise ProblemError(
                    f"{path}: a row of {name} has shape {other.shape[1:]}, a training row "
                    f"{own.shape[1:]}"
                )
    return Arrays(path, x_name, y_name, x, y, query)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        # NumPy leaves a file that it opens itself open where it finds it damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise _unreadable(path, error) from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # unsupported, encrypted
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ProblemError:
    reason = str(error).splitlines()[0] if str(error) else ""
    return ProblemError(
        f"{path} is not a whole NPZ file of plain arrays ({type(error).__name__}: {reason}): write "
        "it again with numpy.savez"
    )


def _name(
    spec: Spec, found: dict[str, np.ndarray], path: str, option: str, usual: tuple[str, ...]
) -> str:
    wanted = (spec.options[option],) if option in spec.options else usual
    for name in wanted:
        if name in found:
            return name
    raise ProblemError(
        f"{path} has no array {' or '.join(wanted)}; it has {', '.join(found) or 'none'}: name one "
        f"with {option}=…"
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
