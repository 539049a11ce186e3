"""``npz:FILE``: arrays saved by NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems import data_checks
from decomposition.problems.from_file import (
    SPLIT_OPTIONS,
    TABLE_DEFAULTS,
    TASKS,
    problem_of,
)
from decomposition.problems.npz_arrays import NUMBERS, Arrays, read_arrays
from decomposition.problems.options import Spec
from decomposition.problems.table import Table
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

OPTIONS = {
    "x": "array of inputs (default x, or x_train)",
    "y": "array of targets (default y, or y_train)",
    "x_query": "array of query inputs (default x_query, or x_test; without: split off)",
    "y_query": "array of query targets (default y_query, or y_test)",
    "task": "classification or regression (default: by the type of y)",
    **SPLIT_OPTIONS,
    "constant": "inputs that never change: refuse (default), zero (default for images)",
    "duplicates": data_checks.OPTION,
}


def npz_problem(
    spec: Spec, path: str, seed: int, recipe: Recipe | None, variant: Variant, quick: bool
) -> Problem:
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
        data_checks.check_columns_vary(flat, columns, path, "leave it out, or set constant=zero")
    table = Table(
        name=Path(path).stem,
        inputs=flat,
        targets=targets,
        classes=classes,
        columns=columns,
        display={"image_shape": list(shape)} if images else {},
        source=path,
    )
    if arrays.query is not None:
        assert query_targets is not None
        held_out = (arrays.query[0].reshape(len(arrays.query[0]), -1), query_targets)
        table = replace(table, held_out=held_out)
    return problem_of(
        spec,
        table,
        TABLE_DEFAULTS,
        lambda row: f"row {row}",
        "leave the row or the column out, or fill it in",
        seed,
        recipe,
        variant,
        quick,
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
    return data_checks.class_codes(y, query_y, arrays.path)
