"""What every kind of data file has in common: what can be wrong with it, said with the place.

A reader makes a Table of a file; here signs for missing values and duplicates are found, options
about the split are taken, and a Problem is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int, Num

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problem_data import QueryInTrainError
from decomposition.problems.options import Spec
from decomposition.problems.table import Defaults, Table, problem_of
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

TASKS = ("classification", "regression")
"""What a target may be."""
SPLIT_OPTIONS = {
    "query": "fraction of the rows that become queries (default 0.2)",
    "queries": "at most this many queries",
}
"""Options of files that hold one table."""
PERCEPTRON = Defaults(
    hidden=(16, 8), quick_hidden=(8,), activation="gelu", recipe=Recipe(schedule="cosine")
)
"""MLP 16-8 with GELU, 80/20 split."""
DUPLICATES = ("refuse", "drop", "allow")
DUPLICATES_OPTION = (
    "refuse (default), drop: keep the first of rows with equal inputs, allow: keep all"
)
STAND_IN, FAR = 1e15, 1e10
"""What a sign for a missing value is at least, and how many times the values beside it."""


def file_problem(
    spec: Spec,
    table: Table,
    defaults: Defaults,
    seed: int,
    recipe: Recipe | None,
    variant: Variant,
    quick: bool,
) -> Problem:
    """The problem of a table read from a file.

    Args:
        spec: its options ``duplicates``, ``query`` and ``queries`` are taken here.
        table: as read.
        defaults: of this kind of file.
        seed, recipe, variant, quick: as for ``problem_of``.

    Raises:
        ProblemError: signs for missing values, duplicates that are refused, or as ``problem_of``.
    """
    policy = spec.choice("duplicates", DUPLICATES, "refuse")
    asked = replace(
        defaults,
        query_fraction=spec.fraction("query", defaults.query_fraction),
        queries=spec.whole("queries", defaults.queries, least=1),
    )
    _check_no_stand_ins(table)
    settled = _settle_duplicates(table, policy)
    try:
        return problem_of(settled, asked, seed, recipe, variant, quick)
    except QueryInTrainError as error:  # equal in single precision alone, else settled above
        raise ProblemError(
            f"{table.place}: in single precision, in which models are trained, {error.said}; round "
            "the file's numbers and use duplicates=drop, or duplicates=allow keeps all"
        ) from error
    except ProblemError as error:
        if table.place in str(error):
            raise
        raise ProblemError(f"{table.place}: {error}") from error


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


def _check_no_stand_ins(table: Table) -> None:
    """Refuse numbers that stand for a missing value, such as 1e20 or 1.7e308.

    A few of at least 1e15 that are 1e10 times all others: beside them the others would be one and
    the same number in single precision. A column that is large as a whole is none of that.

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
            where = table.row_name(row) if row < n else f"query {table.row_name(row - n)}"
            largest = np.sort(sizes[:, column])[len(sizes) // 2]
            raise ProblemError(
                f"{table.place}, {where}, {what} {name!r}: {rows[row, column]:g} stands among "
                f"values such as {largest:g} and looks like a sign for a missing value: "
                f"{table.way_out}"
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


def _settle_duplicates(table: Table, policy: str) -> Table:
    """Rows with equal inputs, that could stand on both sides of the split.

    With query rows of their own, only queries that are also training rows count.

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
    other = int(repeated[0])
    one = table.row_name(int(first[other]))
    second = f"query {table.row_name(other - n)}" if other >= n else table.row_name(other)
    raise ProblemError(
        f"{table.place}: {one} and {second} have the same inputs ({len(repeated)} "
        "such rows): a query that is also a training example dominates its own scores; "
        "duplicates=drop keeps the first of each, duplicates=allow keeps all"
    )


def _first_equal_row(x: Num[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
    """For every row, the number of the first row that equals it."""
    rows = np.ascontiguousarray(x + x.dtype.type(0))  # −0 equals 0
    as_one = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(as_one, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]
