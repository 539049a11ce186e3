"""``npz:FILE``: arrays saved by NumPy, with the names that are usual or that options give."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decomposition.array_files import Archive, ArrayFileError, read_archive
from decomposition.errors import ProblemError
from decomposition.problems.data_files import (
    DUPLICATES_OPTION,
    SPLIT_OPTIONS,
    TASKS,
    check_columns_vary,
    class_codes,
)
from decomposition.problems.options import Spec, file_of
from decomposition.problems.table import Table

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
OPTIONS = {
    "x": "array of inputs (default x, or x_train)",
    "y": "array of targets (default y, or y_train)",
    "x_query": "array of query inputs (default x_query, or x_test; without: split off)",
    "y_query": "array of query targets (default y_query, or y_test)",
    "task": "classification or regression (default: by the type of y)",
    **SPLIT_OPTIONS,
    "constant": "inputs that never change: refuse (default), zero (default for images)",
    "duplicates": DUPLICATES_OPTION,
}


def npz_table(spec: Spec, path: str) -> Table:
    """Arrays in a NumPy .npz file.

    The arrays are x and y, or x_train, y_train, x_query (x_test) and y_query (y_test), or named
    by options. x is (n, features); with more dimensions its rows are images, and flattened. y is
    labels if it is (n,) and holds whole numbers or words, and numbers to regress on otherwise,
    unless ``task`` says. Inputs and regression targets are standardised; MLP 16-8 with GELU.

    Raises:
        ProblemError: the file is absent or damaged, or the arrays do not fit each other.
    """
    arrays = read_arrays(spec, path)
    targets, query_targets, classes = _targets(spec, arrays)
    shape = arrays.x.shape[1:]
    flat = arrays.x.reshape(len(arrays.x), -1)
    images = len(shape) > 1
    columns = [f"{arrays.x_name}[:, {column}]" for column in range(flat.shape[1])]
    if spec.choice("constant", ("refuse", "zero"), "zero" if images else "refuse") == "refuse":
        check_columns_vary(flat, columns, path, "leave it out, or set constant=zero")
    return Table(
        name=Path(path).stem,
        inputs=flat,
        targets=targets,
        classes=classes,
        held_out=None
        if arrays.query is None or query_targets is None
        else (arrays.query[0].reshape(len(arrays.query[0]), -1), query_targets),
        columns=columns,
        display={"image_shape": list(shape)} if images else {},
        source=path,
    )


def _targets(spec: Spec, arrays: Arrays) -> tuple[np.ndarray, np.ndarray | None, int | None]:
    """Training and query targets as a Table holds them, and the number of classes."""
    y, query_y = arrays.y, None if arrays.query is None else arrays.query[1]
    whole = y.dtype.kind in "iubUS"
    task = spec.choice("task", TASKS, TASKS[0] if whole and y.ndim == 1 else TASKS[1])
    if task == "regression":
        if y.dtype.kind not in NUMBERS:
            raise ProblemError(
                f"{arrays.path}: {arrays.y_name} holds {y.dtype}, not numbers to regress on: use "
                "task=classification"
            )
        numbers = [
            None if part is None else part.reshape(len(part), -1).astype(np.float64)
            for part in (y, query_y)
        ]
        assert numbers[0] is not None
        return numbers[0], numbers[1], None
    labels = whole or (y.dtype.kind == "f" and bool((y == np.round(y)).all()))
    if y.ndim != 1 or not labels:
        raise ProblemError(
            f"{arrays.path}: {arrays.y_name} of shape {y.shape} and type {y.dtype} holds no class "
            "labels, which are one whole number or word per row: use task=regression"
        )
    return class_codes(y, query_y, arrays.path)


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
