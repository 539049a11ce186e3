"""A result in a notebook: its verdict, its levels and shares, and every table by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape

import xarray as xr

from decomposition.report.content import Section, Table
from decomposition.report.page import as_tree, report_sections, report_title
from decomposition.report.study import Study
from decomposition.report.verdict import sentences
from decomposition.report.wording import visible

SUMMARY = ("levels", "shares")
"""Tables that a summary shows; the others are a name away."""


@dataclass(frozen=True)
class Summary:
    """What a notebook shows of a result."""

    title: str
    verdict: tuple[str, ...]
    """The answer in sentences, with intervals."""
    tables: dict[str, Table]
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


def show(tree_or_path: xr.DataTree | str | os.PathLike[str]) -> Summary:
    """A summary of a result that shows itself in a notebook.

    Args:
        tree_or_path: a result, or the file or folder that holds one.

    Raises:
        ResultFileError: there is no readable result at the path.
    """
    study = Study(as_tree(tree_or_path))
    found = report_sections(study)
    return Summary(report_title(study), tuple(sentences(study)), _tables(found))


def _tables(sections: list[Section]) -> dict[str, Table]:
    return {
        block.name: block
        for section in sections
        for block in section.blocks
        if isinstance(block, Table)
    }
