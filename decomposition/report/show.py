"""A result in a notebook: its verdict, its levels and shares, and every table by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from html import escape

from decomposition.report.content import Filled, Table
from decomposition.report.html import table_html
from decomposition.report.page import Source, as_tree, report_sections, report_title
from decomposition.report.result import Result
from decomposition.report.verdict import sentences
from decomposition.report.wording import visible

SUMMARY = ("levels", "shares")
"""Tables that a summary shows; the others are a name away."""


@dataclass(frozen=True)
class ShownTable(Table):
    """A table that shows itself in a notebook."""

    def _repr_html_(self) -> str:
        return table_html(self)


@dataclass(frozen=True)
class Summary:
    """What a notebook shows of a result."""

    title: str
    verdict: tuple[str, ...]
    """The answer in sentences, with intervals."""
    tables: dict[str, ShownTable]
    """Every table of the report by name; each shows itself in a notebook."""

    def _repr_html_(self) -> str:
        answer = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.verdict)
        shown = [self.tables[name]._repr_html_() for name in SUMMARY if name in self.tables]
        others = [escape(name) for name in self.tables if name not in SUMMARY]
        more = f"<p>Further tables: {', '.join(others)}.</p>" if others else ""
        heading = f"<h3><bdi>{escape(self.title)}</bdi></h3>"
        return visible(f"{heading}{answer}{''.join(shown)}{more}")

    def __str__(self) -> str:
        """The title and the verdict, for a terminal."""
        return visible("\n".join([self.title, *self.verdict]))


def show(result: Source) -> Summary:
    """A summary of a result that shows itself in a notebook.

    Args:
        result: a result, or the file or folder that holds one.

    Raises:
        ResultFileError: there is no readable result at the path.
    """
    read = Result(as_tree(result))
    said = [
        f"{one.name}: {sentence}" if one.name else sentence
        for one in (read.each() if read.few else ())
        for sentence in sentences(one)
    ]
    return Summary(report_title(read), tuple(said), _tables(report_sections(read)))


def _tables(sections: list[Filled]) -> dict[str, ShownTable]:
    return {
        block.name: ShownTable(*(getattr(block, field.name) for field in fields(Table)))
        for section in sections
        for block in section.flat()
        if isinstance(block, Table)
    }
