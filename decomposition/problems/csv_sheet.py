"""Read a delimited text file into named columns of text, knowing the line of every row."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import pandas as pd

from decomposition.errors import ProblemError
from decomposition.problems.options import Spec, counted, file_of

SEPARATORS = {"tab": "\t", "semicolon": ";", "pipe": "|", "comma": ",", "space": " "}
"""By name, in the order in which they are tried: commas also stand inside numbers and text."""
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null"})
"""Fields that mean a missing value, in small letters."""
SAMPLE = 50


@dataclass(frozen=True, eq=False)
class Sheet:
    """Columns of text fields by name; the index says in which line of the file a row ends."""

    path: str
    frame: pd.DataFrame

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.frame.columns)

    def column(self, name: str) -> pd.Series:
        """All fields of a column."""
        return pd.Series(self.frame[name])

    def find(self, reference: str) -> str:
        """The column of that name, of that number (from 1), or ``last``.

        Raises:
            ProblemError: there is none; the message lists them.
        """
        if reference in self.names:
            return reference
        if reference == "last":
            return self.names[-1]
        number = counted(reference) or 0
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
        missing = self.frame.map(is_missing)
        rows = missing.any(axis=1)
        if rows.any() and not drop:
            line = rows.idxmax()
            name = missing.loc[line].idxmax()
            raise ProblemError(
                f"{self.path}, line {line}, column {name!r}: the value is missing "
                f"({self.frame.loc[line, name]!r}); fill it in, leave out all such rows with "
                "missing=drop, or the column with drop=COLUMN"
            )
        return replace(self, frame=self.frame[~rows])


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


def mostly_numbers(fields: Iterable[str]) -> bool:
    """Whether more than half of the fields are numbers."""
    numeric = [is_number(field) for field in fields]
    return 2 * sum(numeric) > len(numeric)


def read_sheet(spec: Spec, path: str) -> Sheet:
    """The sheet in a text file, plain or .gz, in UTF-8 or UTF-16, with or without a header line.

    Raises:
        ProblemError: the file is absent, is no text, has rows of unequal length, names a column
            twice, or leaves open whether its first line is a header.
    """
    text = _text(path)
    named = spec.choice("sep", ("auto", *SEPARATORS), "auto")
    separator = _detected(text, path) if named == "auto" else SEPARATORS[named]
    numbered = list(_records(text, separator, path))
    if len(numbered) < 2:
        raise ProblemError(f"{path} has {len(numbered)} lines with data: is it the right file?")
    width, _ = _common([len(row) for _, row in numbered])
    for line, row in numbered:
        if len(row) != width:
            raise ProblemError(
                f"{path}, line {line}: {len(row)} fields where most lines have {width} (an "
                "unquoted separator inside a field, a line that is no data, or the wrong sep?)"
            )
    lines, rows = zip(*numbered, strict=True)
    frame = pd.DataFrame(rows, lines, dtype=object)
    header = _has_header(frame, spec, path)
    names = frame.iloc[0] if header else map(str, range(1, width + 1))
    frame = frame.iloc[int(header) :].set_axis(list(names), axis=1)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ProblemError(f"{path}: two columns are named {twice!r}; rename one")
    return Sheet(path, frame)


def _text(path: str) -> str:
    try:
        content = file_of(path, "CSV file").read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise ProblemError(
            f"{path} cannot be read as UTF-8 text ({error}): decompress it, or save it as UTF-8"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ProblemError(f"{path}, line {line}: a NUL character: is it text? Save it as UTF-8")
    return text


def _records(text: str, separator: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """(Line in which it ends, stripped fields) of every record that is not blank.

    By Python's own reader: that of pandas numbers no lines, fills short records up, and leaves
    out those with a wrong quote once longer ones are to be told.

    Raises:
        ProblemError: a quote is not closed, or closed in the middle of a field.
    """
    source = io.StringIO(text, newline="")
    if separator == " ":
        yield from ((i, line.split()) for i, line in enumerate(source, 1) if line.strip())
        return
    reader = csv.reader(source, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise ProblemError(f"{path}, line {reader.line_num}: {error}") from error


def _detected(text: str, path: str) -> str:
    """The separator that cuts most of the first rows into equally many fields."""
    best, most = "", 1  # a row agrees with itself
    for separator in SEPARATORS.values():
        widths: list[int] = []
        with suppress(ProblemError):  # a quote that this separator cannot close
            widths += (len(row) for _, row in islice(_records(text, separator, path), SAMPLE))
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


def _has_header(frame: pd.DataFrame, spec: Spec, path: str) -> bool:
    """A first line with a number in it is data; words over (mostly) numbers are a header."""
    answer = spec.choice("header", ("auto", "yes", "no"), "auto")
    if answer != "auto":
        return answer == "yes"
    if any(is_number(field) for field in frame.iloc[0]):
        return False
    if any(mostly_numbers(frame[column].iloc[1:]) for column in frame.columns):
        return True
    raise ProblemError(
        f"{path}: no column holds numbers, so the first line could be a header or data: say "
        "header=yes or header=no"
    )
