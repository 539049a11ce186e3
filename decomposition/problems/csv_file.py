"""``csv:FILE``: a table as text, such as those of the UCI repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems import csv_columns, data_checks
from decomposition.problems.csv_sheet import SEPARATORS, Sheet, is_number, read_sheet
from decomposition.problems.from_file import (
    SPLIT_OPTIONS,
    TABLE_DEFAULTS,
    TASKS,
    problem_of,
)
from decomposition.problems.options import Spec
from decomposition.problems.table import Table
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

OPTIONS = {
    "target": "column to predict: its name, its number from 1, or last (required)",
    "task": "classification or regression (default for words: classification)",
    "drop": "columns to leave out, with commas between them",
    "categorical": "columns of numbers that are categories, with commas between them",
    "missing": "rows with missing values (empty, ?, NA, NaN): refuse (default), drop",
    "sep": f"auto (default), {', '.join(SEPARATORS)}",
    "header": "auto (default), yes, no: columns then have the names 1, 2, …",
    **SPLIT_OPTIONS,
    "duplicates": data_checks.OPTION,
}


def csv_problem(
    spec: Spec, path: str, seed: int, recipe: Recipe | None, variant: Variant, quick: bool
) -> Problem:
    """A table as text, with one column to predict.

    Columns of numbers are inputs as they are, columns of words are one-hot (one column where
    there are two values); all are standardised on the training rows. A target of words has
    classes; for a target of numbers ``task`` must say. MLP 16-8 with GELU, 80/20 split.

    Raises:
        ProblemError: the file is absent or malformed, a value is missing, a column is constant,
            or the target does not fit the task.
    """
    sheet = read_sheet(spec, path)
    if "target" not in spec.options:
        raise ProblemError(
            f"{spec.text!r} names no target: add ?target=COLUMN, one of {', '.join(sheet.names)}"
        )
    target = sheet.find(spec.options["target"])
    left_out = {sheet.find(column) for column in spec.words("drop")}
    categorical = [sheet.find(column) for column in spec.words("categorical")]
    columns = [name for name in sheet.names if name != target and name not in left_out]
    if "" in columns:
        raise ProblemError(
            f"{path}: column {sheet.names.index('') + 1} has no name; if it is an index, leave it "
            f"out with drop={sheet.names.index('') + 1}, else name it"
        )
    if target in left_out or not columns:
        raise ProblemError(f"{spec.text!r} leaves out the target, or every input column")
    sheet = replace(sheet, frame=sheet.frame[[*columns, target]]).without_missing(
        spec.choice("missing", ("refuse", "drop"), "refuse") == "drop"
    )
    if sheet.frame.empty:
        raise ProblemError(f"{path}: every row has a missing value; leave columns out with drop=")
    targets, classes = _targets(spec, sheet, target)
    encoded = csv_columns.encode(sheet, columns, categorical)
    data_checks.check_columns_vary(
        encoded.values, encoded.names, path, "leave it out with drop=COLUMN"
    )
    table = Table(
        Path(path).stem,
        encoded.values,
        targets,
        classes,
        columns=encoded.names,
        source=path,
    )
    return problem_of(
        spec,
        table,
        TABLE_DEFAULTS,
        lambda row: f"line {sheet.frame.index[row]}",
        "leave it empty (and such rows out with missing=drop), or the column out with drop=COLUMN",
        seed,
        recipe,
        variant,
        quick,
    )


def _targets(spec: Spec, sheet: Sheet, target: str) -> tuple[np.ndarray, int | None]:
    numeric = sheet.column(target).map(is_number).all()
    if numeric and "task" not in spec.options:
        raise ProblemError(
            f"{sheet.path}: the target {target!r} holds numbers: say task=classification or "
            "task=regression"
        )
    if spec.choice("task", TASKS, TASKS[0]) == "regression":
        return csv_columns.numbers(sheet, target)[:, None], None
    return csv_columns.labels(sheet, target)
