"""Read a delimited text file into named columns of text, knowing the line of every row."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from decomposition.errors import ProblemError
from decomposition.problems.options import Spec, file_of

SEPARATORS = {"tab": "\t", "semicolon": ";", "pipe": "|", "comma": ",", "space": " "}
"""By name, in the order in which they are tried: commas also stand inside numbers and text."""
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null"})
"""Fields that mean a missing value, in small letters."""
SAMPLE = 50


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of text fields under column names; row i stands in line ``lines[i]`` of the file."""

    path: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> tuple[str, ...]:
        """All fields of a column."""
        place = self.names.index(name)
        return tuple(row[place] for row in self.rows)

    def find(self, reference: str) -> str:
        """The column of that name, of that number (from 1), or ``last``.

        Raises:
            ProblemError: there is none; the message lists them.
        """
        if reference in self.names:
            return reference
        if reference == "last":
            return self.names[-1]
        number = int(reference) if reference.isascii() and reference.isdigit() else 0
        if 1 <= number <= len(self.names):
            return self.names[number - 1]
        raise ProblemError(
            f"{self.path} has no column {reference!r}: name one of {', '.join(self.names)}, or a "
            f"number from 1 to {len(self.names)}, or last"
        )

    def without_missing(self, drop: bool) -> Sheet:
        """Rows that are complete.

        Raises:
            ProblemError: a row is not, and ``drop`` is False.
        """
        kept = []
        for i, row in enumerate(self.rows):
            empty = next((j for j, field in enumerate(row) if is_missing(field)), None)
            if empty is None:
                kept.append(i)
            elif not drop:
                raise ProblemError(
                    f"{self.path}, line {self.lines[i]}, column {self.names[empty]!r}: the value "
                    f"is missing ({row[empty]!r}); fill it in, leave out all such rows with "
                    "missing=drop, or the column with drop=COLUMN"
                )
        return replace(
            self,
            rows=tuple(self.rows[i] for i in kept),
            lines=tuple(self.lines[i] for i in kept),
        )


def is_missing(field: str) -> bool:
    """Whether a field stands for no value."""
    return field.lower() in MISSING


def is_number(field: str) -> bool:
    """Whether a field is a number as CSV files write them (no underscores)."""
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field


def mostly_numbers(fields: Sequence[str]) -> bool:
    """Whether more than half of the fields are numbers."""
    return 2 * sum(map(is_number, fields)) > len(fields)


def read_sheet(spec: Spec, path: str) -> Sheet:
    """The sheet in a file, UTF-8, with or without a header line.

    Raises:
        ProblemError: the file is absent, is no text, has rows of unequal length, names a column
            twice, or leaves open whether its first line is a header.
    """
    try:
        text = file_of(path, "CSV file").read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise ProblemError(
            f"{path} cannot be read as UTF-8 text ({error}): decompress it, or save it as UTF-8"
        ) from error
    named = spec.choice("sep", ("auto", *SEPARATORS), "auto")
    separator = _detected(text, path) if named == "auto" else SEPARATORS[named]
    numbered = list(_fields(text, separator, path))
    if len(numbered) < 2:
        raise ProblemError(f"{path} has {len(numbered)} lines with data: is it the right file?")
    width, _ = _common([len(row) for _, row in numbered])
    for line, row in numbered:
        if len(row) != width:
            raise ProblemError(
                f"{path}, line {line}: {len(row)} fields where most lines have {width} (an "
                "unquoted separator inside a field, a line that is no data, or the wrong sep?)"
            )
    header = _has_header([row for _, row in numbered], spec, path)
    names = numbered[0][1] if header else tuple(str(number + 1) for number in range(width))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ProblemError(f"{path}: two columns are named {twice[0]!r}; rename one")
    lines, rows = zip(*numbered[header:], strict=True)
    return Sheet(path, names, rows, lines)


def _fields(text: str, separator: str, path: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(Line number, stripped fields) of every line that is not blank."""
    if separator == " ":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, tuple(line.split())
        return
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, tuple(field.strip() for field in row)
    except csv.Error as error:
        raise ProblemError(f"{path}, line {reader.line_num}: {error}") from error


def _detected(text: str, path: str) -> str:
    """The separator that cuts most of the first lines into equally many fields."""
    head = "\n".join([line for line in text.splitlines() if line.strip()][:SAMPLE])
    best, most = "", 1  # a line agrees with itself
    for separator in SEPARATORS.values():
        try:
            widths = [len(row) for _, row in _fields(head, separator, path)]
        except ProblemError:  # a quote that this separator cannot close
            continue
        width, agreeing = _common(widths)
        if agreeing > most and width > 1:
            best, most = separator, agreeing
    if not best:
        raise ProblemError(
            f"{path}: no separator found in the first lines; name it with sep=, one of "
            f"{', '.join(SEPARATORS)}"
        )
    return best


def _common(widths: Sequence[int]) -> tuple[int, int]:
    """The most frequent width, and how many lines have it."""
    return Counter(widths).most_common(1)[0] if widths else (0, 0)


def _has_header(rows: list[tuple[str, ...]], spec: Spec, path: str) -> bool:
    """A first line with a number in it is data; words over (mostly) numbers are a header."""
    answer = spec.choice("header", ("auto", "yes", "no"), "auto")
    if answer != "auto":
        return answer == "yes"
    if any(is_number(field) for field in rows[0]):
        return False
    if any(mostly_numbers(column) for column in zip(*rows[1:], strict=True)):
        return True
    raise ProblemError(
        f"{path}: no column holds numbers, so the first line could be a header or data: say "
        "header=yes or header=no"
    )
