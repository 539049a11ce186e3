"""How a problem is named: ``NAME`` or ``KIND:PATH``, then ``?option=value&option=value``.

Options that every name takes change its network and data (a Variant) and its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import unquote

from decomposition.checks import shown
from decomposition.errors import ProblemError
from decomposition.problems.networks import ACTIVATIONS
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

VARIANT = {
    "hidden": "widths of the hidden layers, such as 64-32; none for a linear model",
    "activation": ", ".join(ACTIVATIONS),
    "examples": "number of training rows to keep",
    "label_noise": "fraction of wrong training labels; for regression, noise in std of the target",
}
RECIPE = {
    "optimizer": "sgd, adam, adamw",
    "lr": "learning rate",
    "momentum": "momentum of SGD",
    "weight_decay": "weight decay",
    "schedule": "constant, cosine",
    "epochs": "passes over the training rows",
    "batch_size": "examples per step",
    "drop_last": "true leaves out the last batch of an epoch where it is smaller",
}
COMMON = VARIANT | RECIPE
"""Option → meaning."""


@dataclass(frozen=True)
class Spec:
    """A problem's name taken apart; nothing is converted yet."""

    text: str
    """The whole name as the user wrote it."""
    name: str
    """What stands before the question mark."""
    options: Mapping[str, str]

    def check(self, known: Mapping[str, str]) -> None:
        """Refuse options that are not in ``known``, a mapping from name to meaning.

        Raises:
            ProblemError: the message lists the known ones.
        """
        unknown = [option for option in self.options if option not in known]
        if unknown:
            listed = "\n".join(f"  {option:12} {meaning}" for option, meaning in known.items())
            raise ProblemError(
                f"unknown option {unknown[0]!r} in {self.text!r}; {self.name} takes\n{listed}"
            )

    def choice(self, option: str, allowed: tuple[str, ...], default: str) -> str:
        """One of a few words."""
        value = self.options.get(option, default)
        if value not in allowed:
            raise self.wrong(option, f"one of {', '.join(allowed)}")
        return value

    def whole(self, option: str, default: int | None, least: int = 0) -> int | None:
        """A whole number, at least ``least``."""
        if option not in self.options:
            return default
        value = counted(self.options[option])
        if value is None or value < least:
            raise self.wrong(option, f"a whole number >= {least}")
        return value

    def number(self, option: str, default: float) -> float:
        """A number."""
        if option not in self.options:
            return default
        try:
            return float(self.options[option])
        except ValueError:
            raise self.wrong(option, "a number") from None

    def fraction(self, option: str, default: float) -> float:
        """A number between 0 and 1, both excluded."""
        value = self.number(option, default)
        if not 0 < value < 1:
            raise self.wrong(option, "a fraction between 0 and 1")
        return value

    def words(self, option: str) -> list[str]:
        """A list with commas between its items."""
        return [word for word in self.options.get(option, "").split(",") if word]

    def wrong(self, option: str, wanted: str) -> ProblemError:
        """The error for an option whose value does not fit."""
        return ProblemError(
            f"option {option} of {self.name} must be {wanted}, got {shown(self.options[option])}"
        )


def counted(text: str) -> int | None:
    """The whole number that a text is, of at most 18 digits; else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def parse(text: str) -> Spec:
    """Take a problem's name apart; ``%26`` in a value stands for &, as in a web address.

    Raises:
        ProblemError: an option without a value, or given twice.
    """
    name, mark, query = text.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if mark else []:
        option, equals, value = part.partition("=")
        if not equals or not option:
            raise ProblemError(f"{text!r}: write options as option=value, got {part!r}")
        if option in options:
            raise ProblemError(f"{text!r}: option {option} is given twice")
        options[option] = unquote(value)
    return Spec(text, name, options)


def file_of(path: str, what: str) -> Path:
    """An existing file.

    Raises:
        ProblemError: there is none.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        kind = "is a folder, not a file" if found.is_dir() else "does not exist"
        raise ProblemError(f"{what} {path} {kind}: check the path (it starts at {Path.cwd()})")
    return found


def variant_of(spec: Spec, given: Variant | None) -> Variant:
    """The variant that a name asks for; what ``given`` changes itself goes before.

    Raises:
        ProblemError: a value that is none.
    """
    named = Variant(
        hidden=_widths(spec),
        activation=spec.options.get("activation"),
        examples=spec.whole("examples", None, least=2),
        label_noise=spec.number("label_noise", 0.0),
    )
    if given is None:
        return named
    plain = Variant()
    changed = {
        field.name: getattr(given, field.name)
        for field in fields(Variant)
        if getattr(given, field.name) != getattr(plain, field.name)
    }
    return replace(named, **changed)


def recipe_of(spec: Spec, recipe: Recipe) -> Recipe:
    """A recipe with the changes that a name asks for.

    Raises:
        ProblemError: a value that is none, or outside its range.
    """
    changes: dict[str, object] = {}
    for option in spec.options.keys() & RECIPE.keys():
        kind = type(getattr(recipe, option))
        if kind is bool:
            changes[option] = spec.choice(option, ("true", "false"), "false") == "true"
        elif kind is int:
            changes[option] = spec.whole(option, None)
        elif kind is float:
            changes[option] = spec.number(option, 0.0)
        else:
            changes[option] = spec.options[option]
    return replace(recipe, **changes)  # type: ignore[arg-type]


def _widths(spec: Spec) -> tuple[int, ...] | None:
    text = spec.options.get("hidden")
    if text is None:
        return None
    if text == "none":
        return ()
    widths = [counted(part) for part in text.split("-")]
    if None in widths:
        raise spec.wrong("hidden", "widths such as 64-32, or none")
    return tuple(width for width in widths if width is not None)
