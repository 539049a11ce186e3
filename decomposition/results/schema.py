"""The result tree: every group, variable, dimension and attribute, written down once.

A result is an ``xarray.DataTree`` kept as netCDF-4. It holds one cell, a problem at one
checkpoint, or many: then the groups that can be stacked have the dimension ``cell`` in front, and
``/cells`` says what tells the cells apart. Dimensions are found by name and each has a coordinate;
intervals are a ``ci_bound`` coordinate; attributes are strings or numbers, so what has structure
is one JSON string. Exact and estimated numbers are the same variables: a ``standard_error`` beside
them is 0 where a number is exact. Any group may be missing: a run without retraining has no
``/bank``. A child group inherits its parent's coordinates, so a dimension that has other values in
the child bears another name there: ``block_index`` beside ``index``, ``setting`` beside
``damping``; or the child has the parent's values, NaN where it knows nothing.
"""

from __future__ import annotations

from decomposition.results.derived import DERIVED
from decomposition.results.measured import MEASURED
from decomposition.results.table import Attribute, Group

SCHEMA_VERSION = 2
"""Written to the root; raised when a reader of the old schema could misread the new one."""

CELL = "cell"
"""The dimension of many cells; numbers from 0."""

CELL_COORDINATES = (
    "label",
    "dataset",
    "hidden",
    "depth",
    "width",
    "activation",
    "epoch",
    "momentum",
    "seed",
    "alpha",
    "randomness",
    "target",
    "examples",
    "label_noise",
)
"""Coordinates along ``cell`` in ``/cells`` of many cells: what tells them apart."""

ATTRIBUTES = (
    Attribute("schema_version", int, "SCHEMA_VERSION of the writer", required=True),
    Attribute("created_at", str, "ISO 8601 time in UTC", required=True),
    Attribute("library_version", str, "of this package", required=True),
    Attribute("command", str, "what to type to make the result again", required=True),
    Attribute("config", dict, "the whole configuration of the run"),
    Attribute("versions", dict, "package → version"),
    Attribute("device", str, "where the run computed"),
    Attribute("dtype", str, "precision of the curvature"),
    Attribute("seeds", dict, "purpose → seed"),
    Attribute("problem", str, "name of the problem"),
    Attribute("parameters", int, "P"),
    Attribute("examples", int, "N"),
    Attribute("queries", int, "number of queries"),
    Attribute("ci_level", float, "level of the intervals, such as 0.95"),
    Attribute("notes", list, "warnings: degenerate basis, optimum on an edge, low ceiling, …"),
    Attribute("timings", dict, "stage → seconds"),
    Attribute("hardware", dict, "processor, cores, memory"),
    Attribute("study", str, "short name of a study of many cells"),
    Attribute("title", str, "heading of the report; default from the problem"),
    Attribute("description", str, "a sentence on what a study varies"),
    Attribute("factor", str, "the coordinate of /cells that a study varies, multiplier or grid"),
)
"""Attributes of the root; one without the required ones is no result."""

GROUPS = (*MEASURED, *DERIVED)
"""The whole schema, parents before children."""


def group_of(path: str) -> Group | None:
    """The group that ``path`` is an instance of, or None if the schema has no such group."""
    exact = {group.path: group for group in GROUPS}
    if path in exact:
        return exact[path]
    parent, _, _ = path.rpartition("/")
    return exact.get(f"{parent}/{{block}}")
