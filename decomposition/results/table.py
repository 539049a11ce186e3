"""What a row of the schema is: a group of the result tree, with its arrays and attributes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """One attribute, of the root or of a group; any may be missing unless it is required."""

    name: str
    kind: type
    """str, int or float; dict or list where it is kept as a string of JSON."""
    meaning: str
    required: bool = False


@dataclass(frozen=True)
class Variable:
    """One array of the tree."""

    name: str
    dims: tuple[str, ...]
    units: str
    meaning: str
    kind: str = "float"
    """float, int, str or any: the kind of NumPy dtype."""
    required: bool = False
    """Whether the group is useless without it."""
    or_dims: tuple[tuple[str, ...], ...] = ()
    """Other legal tuples of dimensions."""


@dataclass(frozen=True)
class Group:
    """One group of the tree; ``{block}`` in a path stands for the name of any block."""

    path: str
    meaning: str
    variables: tuple[Variable, ...]
    stacked: bool = True
    """Whether many cells share it, with ``cell`` in front; else it stays in each cell's result."""
    attributes: tuple[Attribute, ...] = ()


def variable(
    name: str,
    dims: str,
    units: str,
    meaning: str,
    kind: str = "float",
    required: bool = False,
    or_dims: str = "",
) -> Variable:
    """A variable whose dimensions are one string, separated by blanks; ``or_dims`` by commas."""
    others = tuple(tuple(other.split()) for other in or_dims.split(",") if other)
    return Variable(name, tuple(dims.split()), units, meaning, kind, required, others)
