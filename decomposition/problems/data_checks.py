"""What can be wrong with data from a file, said with the file, the place and the way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int, Num

from decomposition.errors import ProblemError
from decomposition.problems.table import Table

DUPLICATES = ("refuse", "drop", "allow")
STAND_IN, FAR = 1e15, 1e10
"""What a sign for a missing value is at least, and how many times the values beside it."""
OPTION = "refuse (default), drop: keep the first of rows with equal inputs, allow: keep all"


def check_columns_vary(
    inputs: Num[np.ndarray, "n d"], names: Sequence[str], source: str, way_out: str
) -> None:
    """Raise ProblemError if a column has the same value in every row."""
    constant = np.flatnonzero((inputs == inputs[:1]).all(0))
    if len(constant):
        column = names[constant[0]]
        more = f" (and {len(constant) - 1} more)" if len(constant) > 1 else ""
        raise ProblemError(
            f"{source}: column {column!r}{more} has the same value, {inputs[0, constant[0]]:g}, "
            f"in all {len(inputs)} rows: {way_out}"
        )


def check_no_stand_ins(table: Table, row_name: Callable[[int], str], way_out: str) -> None:
    """Refuse numbers that stand for a missing value, such as 1e20 or 1.7e308.

    A few of at least 1e15 that are 1e10 times all others: beside them the others would be one and
    the same number in single precision. A column that is large as a whole is none of that.

    Args:
        table: the data; inputs, and targets if they are numbers.
        row_name: how a message calls row i of the table (or of its query rows).
        way_out: what to do with such a column.

    Raises:
        ProblemError: the message names file, row and column.
    """
    n = len(table.inputs)
    own, held = (table.inputs, table.targets), table.held_out
    for part, what in enumerate(("column", "target")[: 2 if table.classes is None else 1]):
        rows = own[part] if held is None else np.concatenate([own[part], held[part]])
        if rows.dtype.kind not in "fiu":
            continue
        sizes = np.abs(rows.astype(np.float64))
        for column in np.flatnonzero(sizes.max(0) >= STAND_IN):
            row = _stand_in(sizes[:, column])
            if row is None:
                continue
            name = table.columns[int(column)] if table.columns and not part else str(column)
            where = row_name(row) if row < n else f"query {row_name(row - n)}"
            largest = np.sort(sizes[:, column])[len(sizes) // 2]
            raise ProblemError(
                f"{table.place}, {where}, {what} {name!r}: {rows[row, column]:g} stands among "
                f"values such as {largest:g} and looks like a sign for a missing value: {way_out}"
            )


def _stand_in(sizes: np.ndarray) -> int | None:
    """The first row whose magnitude no other is near to, of fewer than half of them."""
    steps = np.unique(np.append(sizes, 1.0))
    with np.errstate(over="ignore"):
        odd = steps[1:][(steps[1:] >= STAND_IN) & (steps[1:] / np.maximum(steps[:-1], 1) > FAR)]
    found = np.flatnonzero(sizes >= odd[0]) if len(odd) else odd
    return int(found[0]) if 0 < len(found) < len(sizes) / 2 else None


def class_codes(
    train: np.ndarray, query: np.ndarray | None, source: str
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " q"] | None, int]:
    """Labels of any kind as 0 … C−1, in sorted order of the training labels.

    Returns:
        Codes of the training labels, of the query labels, and C.

    Raises:
        ProblemError: one class only, a class that is in the queries alone, or labels that
            hardly repeat.
    """
    values, codes = np.unique(train, return_inverse=True)
    if len(values) < 2:
        raise ProblemError(
            f"{source}: all {len(train)} training labels are {values[0]!s}; classification needs "
            "two classes or more: choose another target"
        )
    if len(values) > max(2, len(train) // 2):
        raise ProblemError(
            f"{source}: the target has {len(values)} classes in {len(train)} rows: is it a number "
            "(task=regression) or an identifier?"
        )
    if query is None:
        return codes.reshape(-1), None, len(values)
    place = np.searchsorted(values, query)
    known = values[np.minimum(place, len(values) - 1)] == query
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise ProblemError(
            f"{source}: query row {row} has the label {query[row]!s}, which no training row has: "
            "drop such queries"
        )
    return codes.reshape(-1), place, len(values)


def settle_duplicates(table: Table, policy: str, row_name: Callable[[int], str]) -> Table:
    """Rows with equal inputs, that could stand on both sides of the split.

    With query rows of their own, only queries that are also training rows count.

    Args:
        table: the data.
        policy: one of DUPLICATES.
        row_name: how a message calls row i of the table (or of its query rows).

    Raises:
        ProblemError: there are some, and the policy is ``refuse``.
    """
    if policy == "allow":
        return replace(table, allow_query_in_train=True)
    x = table.inputs if table.held_out is None else np.concatenate(
        [table.inputs, table.held_out[0]]
    )  # fmt: skip
    first = _first_equal_row(x)
    repeated = np.flatnonzero(first < np.arange(len(x)))
    n = len(table.inputs)
    if table.held_out is not None:
        repeated = repeated[(repeated >= n) & (first[repeated] < n)]
    if not len(repeated):
        return table
    if policy == "drop" and table.held_out is None:
        keep = np.setdiff1d(np.arange(n), repeated)
        return replace(table, inputs=table.inputs[keep], targets=table.targets[keep])
    if policy == "drop":
        assert table.held_out is not None
        query_x, query_y = table.held_out
        keep = np.setdiff1d(np.arange(len(query_x)), repeated - n)
        return replace(table, held_out=(query_x[keep], query_y[keep]))
    one, other = int(first[repeated[0]]), int(repeated[0])
    second = f"query {row_name(other - n)}" if other >= n else row_name(other)
    raise ProblemError(
        f"{table.place}: {row_name(one)} and {second} have the same inputs ({len(repeated)} such "
        "rows): a query that is also a training example dominates its own scores; "
        "duplicates=drop keeps the first of each, duplicates=allow keeps all"
    )


def _first_equal_row(x: Num[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
    """For every row, the number of the first row that equals it."""
    rows = np.ascontiguousarray(x + x.dtype.type(0))  # −0 equals 0
    as_one = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(as_one, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]
