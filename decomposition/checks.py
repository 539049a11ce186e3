"""What users choose, checked alike everywhere: the type, the range, and plain Python values.

A rule is a function of a value: it gives the value back as plain Python (scalars of NumPy and
PyTorch become int, float and bool, lists become tuples), or raises ``Unfit`` with what is allowed.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from decomposition.errors import DecompositionError

Kind = TypeVar("Kind")
Rule = Callable[[Any], Any]
"""A value as given → the same as plain Python."""


class Unfit(Exception):
    """A value that a rule refuses."""

    def __init__(self, wanted: str, value: object, got: str | None = None) -> None:
        """``wanted`` follows the word *must*; ``got`` says what the value is, if not itself."""
        super().__init__(f"must {wanted}, got {got or shown(value)}")


def check_fields(
    owner: object,
    rules: Mapping[str, Rule],
    error: type[DecompositionError],
    called: str = "",
) -> None:
    """Check fields of a frozen dataclass by their rules, and put plain values in their place.

    Args:
        owner: the dataclass.
        rules: field → rule.
        error: what to raise.
        called: how a message calls a field, such as ``{} of a solver``; default Class.field.

    Raises:
        DecompositionError: of the class ``error``; it names the field, what is allowed and what
            was given.
    """
    called = called or f"{type(owner).__name__}.{{}}"
    for name, rule in rules.items():
        value = checked(called.format(name), getattr(owner, name), rule, error)
        object.__setattr__(owner, name, value)


def checked(where: str, value: object, rule: Rule, error: type[DecompositionError]) -> Any:
    """The value as plain Python.

    Raises:
        DecompositionError: of the class ``error``; it begins with ``where``.
    """
    try:
        return rule(value)
    except Unfit as unfit:
        raise error(f"{where} {unfit}") from None


def whole(least: int = 0, bits: int = 31) -> Rule:
    """A whole number from ``least`` to 2^bits − 1; no bool, and no float such as 2.0."""

    def rule(value: object) -> int:
        unboxed = _unboxed(value)
        if not isinstance(unboxed, Integral) or isinstance(unboxed, bool):
            raise Unfit(f"be a whole number >= {least}", value)
        found = int(unboxed)
        if found < least:
            raise Unfit(f"be a whole number >= {least}", value)
        if found >= 1 << bits:
            raise Unfit(f"be a whole number below 2^{bits}", value)
        return found

    return rule


seed = whole(0, bits=63)
"""What NumPy, PyTorch and netCDF all take as a seed."""


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Rule:
    """A finite number in [low, high), or in (low, high) with ``above``; no bool."""
    inside = f"in {'(' if above or low == -math.inf else '['}{low:g}, {high:g})"

    def rule(value: object) -> float:
        unboxed = _unboxed(value)
        if not isinstance(unboxed, Real) or isinstance(unboxed, bool):
            raise Unfit(f"be a number {inside}", value)
        try:
            found = float(unboxed)
        except OverflowError:
            found = math.inf
        fits = low < found < high or (found == low and not above)
        if not (math.isfinite(found) and fits):
            raise Unfit(f"lie {inside}", value)
        return found

    return rule


def one_of(*allowed: str) -> Rule:
    """One of a few words."""

    def rule(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise Unfit(f"be one of {', '.join(allowed)}", value)
        return allowed[allowed.index(value)]

    return rule


def flag(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise Unfit("be True or False", value)
    return bool(value)


def text(value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise Unfit("be a string", value)
    return str(value)


def instance(kind: type) -> Rule:
    """An instance of a class, as it is."""

    def rule(value: object) -> object:
        if not isinstance(value, kind):
            raise Unfit(f"be a {kind.__name__}", value, type(value).__name__)
        return value

    return rule


def readable(read: Callable[[str], object]) -> Rule:
    """A string that ``read`` makes something of, as it is; what it raises is raised."""

    def rule(value: object) -> str:
        found = text(value)
        read(found)
        return found

    return rule


def specifications(written: str, what: str) -> Iterator[tuple[str, str, list[str]]]:
    """Parts of ``name:argument:argument,name``, each as written, its name, and its arguments.

    Raises:
        DecompositionError: one of them stands there twice.
    """
    met: set[str] = set()
    for part in filter(None, (one.strip() for one in written.split(","))):
        if part in met:
            raise DecompositionError(f"the {what} {part} is named twice")
        met.add(part)
        name, *arguments = part.split(":")
        yield part, name, arguments


def numbered(written: str, what: str, kinds: Mapping[str, type[Kind]]) -> Kind:
    """A dataclass of numbers as ``name:number:number`` specifies it.

    Args:
        written: the specification.
        what: the thing, for the message.
        kinds: name → dataclass.

    Raises:
        DecompositionError: an unknown name, or numbers that it does not take.
    """
    name, *numbers = written.split(":")
    if name not in kinds:
        raise DecompositionError(
            f"unknown {what} {name!r}: use {', '.join(kinds)}, with numbers after colons where "
            "there are any"
        )
    takes = [field.name for field in fields(kinds[name])]  # type: ignore[arg-type]
    try:
        given = {takes[i]: float(one) for i, one in enumerate(numbers)}
    except (IndexError, ValueError):
        raise DecompositionError(
            f"{name} does not take {':'.join(numbers)!r} in {written}; it takes "
            f"{' and then '.join(takes) or 'no number'}, numbers after colons"
        ) from None
    return kinds[name](**given)


def optional(rule: Rule) -> Rule:
    """None, or what the rule allows."""
    return lambda value: None if value is None else rule(value)


def several(rule: Rule, count: int | None = None) -> Rule:
    """A tuple, or a list or array of one dimension, of what the rule allows."""
    wanted = "be a tuple" if count is None else f"be a tuple of {count}"

    def each(value: object) -> tuple:
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        if not (listed or (isinstance(value, np.ndarray) and value.ndim == 1)):
            raise Unfit(wanted, value)
        if count not in (None, len(value)):  # type: ignore[arg-type]
            raise Unfit(wanted, value)
        return tuple(rule(item) for item in value)  # type: ignore[attr-defined]

    return each


def _unboxed(value: Any) -> object:
    """What a NumPy scalar, or an array or tensor without dimensions, holds."""
    try:
        return value.item() if value.ndim == 0 else value
    except Exception:  # no array, or a tensor without data
        return value


def shown(value: object) -> str:
    """A value as a message says it: on one line, and no longer than that allows."""
    try:
        return " ".join(reprlib.repr(value).split())
    except Exception:  # the repr of what is the user's, or of a number of 5,000 digits
        return f"something of type {type(value).__name__}"


def printable(name: str, also: str = "") -> str:
    """A name as a result can hold it: netCDF and HTML know neither NUL nor halves of surrogates.

    Characters that cannot be printed, and those in ``also``, become %XX or %uXXXX.
    """
    return "".join(c if c.isprintable() and c not in also else _escaped(ord(c)) for c in name)


def _escaped(code: int) -> str:
    return f"%{code:02X}" if code < 256 else f"%u{code:04X}"
