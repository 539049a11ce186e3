"""From columns of text to inputs and targets: what is a number, what is a category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from decomposition.errors import ProblemError
from decomposition.problems.csv_sheet import Sheet, is_number, mostly_numbers
from decomposition.problems.data_checks import class_codes

MOST_CATEGORIES = 50
"""A column of words with more values than this is taken for an identifier, not a category."""


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
