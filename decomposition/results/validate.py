"""Hold a tree against the schema: on writing, so that no one reads a wrong one, and on reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import xarray as xr

from decomposition.errors import ResultFileError
from decomposition.names import CI_BOUNDS
from decomposition.results.schema import ATTRIBUTES, CELL, group_of
from decomposition.results.table import Attribute, Group, Variable

_KINDS = {"float": "f", "int": "iub", "str": "OUST", "any": "fiubOUST"}


def check_tree(tree: xr.DataTree, where: str, strict: bool) -> None:
    """Raise if ``tree`` is not a result.

    Args:
        tree: the whole result.
        where: the file or object, for the message.
        strict: also refuse groups and variables that the schema does not document; the writer
            is strict, the reader is not, so that a newer writer of the same schema is read.

    Raises:
        ResultFileError: every departure from ``results/schema``, one a line.
    """
    problems = _attribute_problems(tree, strict)
    for node in tree.subtree:
        if node.path == "/" or not node.data_vars:
            continue
        group = group_of(node.path)
        if group is not None:
            problems += _group_problems(node, group, strict)
        elif strict:
            problems.append(f"group {node.path} is not in results/schema; add it there")
    if problems:
        lines = "\n  ".join(problems)
        raise ResultFileError(f"{where} departs from the result schema:\n  {lines}")


def _attribute_problems(tree: xr.DataTree, strict: bool) -> list[str]:
    problems = [
        f"attribute {a.name} is missing"
        for a in ATTRIBUTES
        if a.required and a.name not in tree.attrs
    ]
    problems += attribute_types(tree)
    if strict:
        for node in tree.subtree:
            for name, value in node.attrs.items():
                if value is None or isinstance(value, bool | dict):
                    kind = type(value).__name__
                    problems.append(f"attribute {name} of {node.path} is a {kind}; use JSON")
    return problems


def attribute_types(tree: xr.DataTree) -> list[str]:
    """What is of another type than the report reads, one line each."""
    problems = _wrong_attributes(ATTRIBUTES, tree.attrs, "")
    for node in tree.subtree:
        group = group_of(node.path)
        if group is not None:
            problems += _wrong_attributes(group.attributes, node.attrs, f" of {node.path}")
    return problems


def _wrong_attributes(
    known: Iterable[Attribute], given: Mapping[Any, Any], where: str
) -> list[str]:
    problems = []
    for one in known:
        if one.name not in given:
            continue
        what, value = f"attribute {one.name}{where}", given[one.name]
        number = one.kind in (int, float)
        if not isinstance(value, int | float | np.number if number else str):
            wanted = "a number" if number else "a string"
            problems.append(f"{what} is not {wanted}: {value!r:.80}")
        elif one.kind in (dict, list):
            problems += _json_problems(what, value, one.kind)
    return problems


def _json_problems(name: str, text: object, wanted: type) -> list[str]:
    """What is wrong with a JSON object (``dict``) or a list of strings."""
    try:
        value: Any = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, wanted) and all(isinstance(part, str) for part in value):
        return []
    kind = "object" if wanted is dict else "list of strings"
    return [f"{name} is not a JSON string of one {kind}: {text!r:.80}"]


def _group_problems(node: xr.DataTree, group: Group, strict: bool) -> list[str]:
    data = node.to_dataset(inherit=True)
    known = {variable.name: variable for variable in group.variables}
    problems = [
        f"{node.path} lacks {name}"
        for name, variable in known.items()
        if variable.required and name not in data
    ]
    for name in map(str, node.data_vars):
        if name in known:
            problems += _variable_problems(node.path, data[name], known[name], group.stacked)
        elif strict:
            problems.append(f"{node.path}/{name} is not in results/schema; add it there")
    for dim in data.dims:
        used = any(dim in data[name].dims for name in node.data_vars)
        if used and dim not in data.coords:
            problems.append(f"dimension {dim} of {node.path} has no coordinate")
    if "ci_bound" in data.coords and tuple(data["ci_bound"].values.tolist()) != CI_BOUNDS:
        found = data["ci_bound"].values.tolist()
        problems.append(f"ci_bound of {node.path} is {found}, not {list(CI_BOUNDS)}")
    return problems


def _variable_problems(
    path: str, array: xr.DataArray, variable: Variable, stacked: bool
) -> list[str]:
    problems: list[str] = []
    allowed = [set(dims) for dims in (variable.dims, *variable.or_dims)]
    own = set(array.dims) - ({CELL} if stacked else set())
    if own not in allowed:
        found, wanted = ", ".join(map(str, array.dims)), ", ".join(variable.dims)
        problems.append(f"{path}/{array.name} has dimensions ({found}), not ({wanted})")
    if cast(str, array.dtype.kind) not in _KINDS[variable.kind]:
        problems.append(f"{path}/{array.name} holds {array.dtype}, not {variable.kind}")
    return problems
