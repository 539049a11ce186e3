"""A study's page: the page of every report, with the blocks that only a study has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from decomposition.report import html
from decomposition.report.content import Section
from decomposition.report.grid.content import (
    ClaimTable,
    Columns,
    Details,
    StudyBlock,
    StudySection,
)

_OWN = (ClaimTable, Columns, Details)


def study_page(title: str, byline: str, version: str, sections: Sequence[StudySection]) -> str:
    """The whole page; the same bytes for the same study.

    Args:
        title: heading.
        byline: a line under it.
        version: of the software that made the study.
        sections: in the order of the page.
    """
    return html.page(
        title,
        byline,
        version,
        sections,
        body=lambda section: blocks_html(section.blocks),
        styles=("report.css", "study.css"),
    )


def blocks_html(blocks: Sequence[StudyBlock]) -> Markup:
    """Blocks in their order; neighbours that every report knows are rendered together."""
    parts: list[str] = []
    for own, run in groupby(blocks, key=lambda block: isinstance(block, _OWN)):
        neighbours: tuple[Any, ...] = tuple(run)
        if own:
            parts += map(_own, neighbours)
        else:
            parts.append(html.section_html(Section("", "", neighbours)))
    return Markup("\n".join(parts))


def _own(block: StudyBlock) -> str:
    macros: Any = html.template("study.html.j2").module
    match block:
        case ClaimTable():
            return macros.claims(block, html.data_uri(block.csv().encode(), "text/csv"))
        case Details():
            return macros.details(block, blocks_html(block.blocks))
        case Columns():
            inner = html.section_html(Section("", "", block.figures))
            return f'<div class="{block.css}">{inner}</div>'
    raise TypeError(f"{type(block).__name__} is a block of every report")
