"""How a problem is named: ``NAME`` or ``KIND:PATH``, then ``?option=value&option=value``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from decomposition.checks import shown
from decomposition.errors import ProblemError


@dataclass(frozen=True)
class Spec:
    """A problem's name taken apart; nothing is converted yet."""

    text: str
    """As given."""
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

    def text_of(self, option: str, default: str) -> str:
        """An option as it stands."""
        return self.options.get(option, default)

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
