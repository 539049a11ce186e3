"""What every kind of data file ends with: duplicates settled, options taken, a problem made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problem_data import QueryInTrainError
from decomposition.problems.data_checks import (
    DUPLICATES,
    check_no_stand_ins,
    settle_duplicates,
)
from decomposition.problems.options import Spec
from decomposition.problems.table import Defaults, Table
from decomposition.problems.tabular import tabular_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

TASKS = ("classification", "regression")
"""What a target may be."""
SPLIT_OPTIONS = {
    "query": "fraction of the rows that become queries (default 0.2)",
    "queries": "at most this many queries",
}
"""Options of files that hold one table."""
TABLE_DEFAULTS = Defaults(
    hidden=(16, 8), quick_hidden=(8,), activation="gelu", recipe=Recipe(schedule="cosine")
)
"""MLP 16-8 with GELU, 80/20 split."""


def problem_of(
    spec: Spec,
    table: Table,
    defaults: Defaults,
    row_name: Callable[[int], str],
    way_out: str,
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
        row_name: number of a row → what a user finds it by in the file.
        way_out: what to do with a column that holds signs for missing values.
        seed, recipe, variant, quick: as for ``tabular_problem``.

    Raises:
        ProblemError: signs for missing values, duplicates that are refused, or as
            ``tabular_problem``.
    """
    policy = spec.choice("duplicates", DUPLICATES, "refuse")
    asked = replace(
        defaults,
        query_fraction=spec.fraction("query", defaults.query_fraction),
        queries=spec.whole("queries", defaults.queries, least=1),
    )
    check_no_stand_ins(table, row_name, way_out)
    settled = settle_duplicates(table, policy, row_name)
    try:
        return tabular_problem(settled, asked, seed, recipe, variant, quick)
    except QueryInTrainError as error:  # equal in single precision alone, else settled above
        raise ProblemError(
            f"{table.place}: in single precision, in which models are trained, {error.said}; round "
            "the file's numbers and use duplicates=drop, or duplicates=allow keeps all"
        ) from error
    except ProblemError as error:
        if table.place in str(error):
            raise
        raise ProblemError(f"{table.place}: {error}") from error
