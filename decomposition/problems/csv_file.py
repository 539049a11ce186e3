"""``csv:FILE``: a table as text, such as those of the UCI repository, and what its columns mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from decomposition.errors import ProblemError
from decomposition.problems.csv_sheet import (
    SEPARATORS,
    Sheet,
    is_number,
    mostly_numbers,
    read_sheet,
)
from decomposition.problems.data_files import (
    DUPLICATES_OPTION,
    SPLIT_OPTIONS,
    TASKS,
    check_columns_vary,
    class_codes,
)
from decomposition.problems.options import Spec
from decomposition.problems.table import Table

MOST_CATEGORIES = 50
"""A column of words with more values than this is taken for an identifier, not a category."""
OPTIONS = {
    "target": "column to predict: its name, its number from 1, or last (required)",
    "task": "classification or regression (default for words: classification)",
    "drop": "columns to leave out, with commas between them",
    "categorical": "columns of numbers that are categories, with commas between them",
    "missing": "rows with missing values (empty, ?, NA, NaN): refuse (default), drop",
    "sep": f"auto (default), {', '.join(SEPARATORS)}",
    "header": "auto (default), yes, no: columns then have the names 1, 2, …",
    **SPLIT_OPTIONS,
    "duplicates": DUPLICATES_OPTION,
}


def csv_table(spec: Spec, path: str) -> Table:
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
    encoded = encode(sheet, columns, categorical)
    check_columns_vary(encoded.values, encoded.names, path, "leave it out with drop=COLUMN")
    return Table(
        Path(path).stem,
        encoded.values,
        targets,
        classes,
        columns=encoded.names,
        source=path,
        row_name=lambda row: f"line {sheet.frame.index[row]}",
        way_out=(
            "leave it empty (and such rows out with missing=drop), or the column out with "
            "drop=COLUMN"
        ),
    )


def _targets(spec: Spec, sheet: Sheet, target: str) -> tuple[np.ndarray, int | None]:
    numeric = sheet.column(target).map(is_number).all()
    if numeric and "task" not in spec.options:
        raise ProblemError(
            f"{sheet.path}: the target {target!r} holds numbers: say task=classification or "
            "task=regression"
        )
    if spec.choice("task", TASKS, TASKS[0]) == "regression":
        return numbers(sheet, target)[:, None], None
    return labels(sheet, target)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Input columns as numbers."""

    values: Float[np.ndarray, "n d"]
    names: tuple[str, ...]
    """One per column: that of the sheet, or column=value for a category."""


def encode(sheet: Sheet, columns: Sequence[str], categorical: Sequence[str]) -> Encoded:
    """Input columns, one-hot where they are categories.

    A column whose fields are all numbers is taken as it is, unless it is among ``categorical``.
    One of words is a category: one column of 0 and 1 per value, in sorted order; with two
    values, one column that is 1 at the second.

    Raises:
        ProblemError: a number that is not finite, a word among numbers, decimal commas, or a
            category with more than MOST_CATEGORIES values.
    """
    values: list[np.ndarray] = []
    names: list[str] = []
    for name in columns:
        fields = sheet.column(name)
        if name not in categorical and fields.map(is_number).all():
            values.append(numbers(sheet, name))
            names.append(name)
            continue
        categories = _categories(sheet, name, fields, named=name in categorical)
        shown = categories[1:] if len(categories) == 2 else categories
        values += [(fields == value).to_numpy(float) for value in shown]
        names += [f"{name}={value}" for value in shown]
    return Encoded(np.column_stack(values), tuple(names))


def numbers(sheet: Sheet, name: str) -> Float[np.ndarray, " n"]:
    """A column of numbers.

    Raises:
        ProblemError: a field is none, or is infinite; the message names its line.
    """
    fields = sheet.column(name)
    bad = ~fields.map(lambda field: is_number(field) and math.isfinite(float(field)))
    if bad.any():
        raise ProblemError(f"{_place(sheet, name, bad)} is not a finite number")
    return fields.to_numpy(float)


def labels(sheet: Sheet, name: str) -> tuple[Int[np.ndarray, " n"], int]:
    """A column of class labels as 0 … C−1, and C; numbers are sorted as numbers.

    Raises:
        ProblemError: one class only, or nearly as many classes as rows.
    """
    fields = sheet.column(name)
    values = fields.to_numpy(float if fields.map(is_number).all() else str)
    codes, _, classes = class_codes(values, None, f"{sheet.path}, column {name!r}")
    return codes, classes


def _place(sheet: Sheet, name: str, rows: pd.Series) -> str:
    """Where the first of some rows stands, and what stands there."""
    line = rows.idxmax()
    return f"{sheet.path}, line {line}, column {name!r}: {sheet.frame.loc[line, name]!r}"


def _categories(sheet: Sheet, name: str, fields: pd.Series, named: bool) -> list[str]:
    categories = sorted(fields.unique())
    place = _place(sheet, name, ~fields.map(is_number))
    if not named and mostly_numbers(fields):
        raise ProblemError(
            f"{place} stands among numbers: correct it, leave the column out with drop={name}, or "
            f"take its values as categories with categorical={name}"
        )
    if not named and all(is_number(field.replace(",", ".", 1)) for field in fields):
        raise ProblemError(f"{place} has a decimal comma: write numbers with a point")
    if len(categories) > MOST_CATEGORIES:
        raise ProblemError(
            f"{place} is a category, but the column has {len(categories)} values, more than "
            f"{MOST_CATEGORIES}: leave it out with drop={name}"
        )
    return categories
