"""The result tree: every group, variable, dimension and attribute, written down once.

A result is an ``xarray.DataTree`` kept as netCDF-4. Dimensions are found by name and each has a
coordinate; intervals are a ``ci_bound`` coordinate; attributes are strings or numbers, so what
has structure is one JSON string. Any group may be missing: a study without retraining has no
``/bank`` and no ``/attribution``. A child group inherits its parent's coordinates, so a dimension
that has other values in the child bears another name there: ``block_index`` beside ``index``,
``setting`` beside ``damping``.
"""

from __future__ import annotations

from decomposition.results.schema.attributes import (
    ATTRIBUTES,
    JSON_ATTRIBUTES,
    NUMBERS,
    REQUIRED_ATTRIBUTES,
    SHARES_ATTRIBUTES,
)
from decomposition.results.schema.derived import DERIVED
from decomposition.results.schema.estimated import ESTIMATED
from decomposition.results.schema.measured import MEASURED
from decomposition.results.schema.names import (
    BASELINES,
    CHAIN,
    CI_BOUNDS,
    CROSS_TERM,
    EXACT_METRICS,
    SCHEMA_VERSION,
    STEPS,
)
from decomposition.results.schema.table import Group, Variable

__all__ = [
    "ATTRIBUTES",
    "BASELINES",
    "CHAIN",
    "CI_BOUNDS",
    "CROSS_TERM",
    "EXACT_METRICS",
    "GROUPS",
    "JSON_ATTRIBUTES",
    "NUMBERS",
    "REQUIRED_ATTRIBUTES",
    "SCHEMA_VERSION",
    "SHARES_ATTRIBUTES",
    "STEPS",
    "Group",
    "Variable",
    "group_of",
]

GROUPS = (*MEASURED, *ESTIMATED, *DERIVED)
"""The whole schema, parents before children."""


def group_of(path: str) -> Group | None:
    """The group that ``path`` is an instance of, or None if the schema has no such group."""
    exact = {group.path: group for group in GROUPS}
    if path in exact:
        return exact[path]
    parent, _, _ = path.rpartition("/")
    return exact.get(f"{parent}/{{block}}")
