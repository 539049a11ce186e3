"""The report as Markdown, for a README or a repository of a paper: text, tables, figure files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from decomposition.report.compare import comparison
from decomposition.report.content import (
    Block,
    Code,
    Figure,
    Formula,
    Gallery,
    Items,
    Section,
    Table,
    Text,
)
from decomposition.report.drawing import draw
from decomposition.report.page import as_tree, report_sections, report_title
from decomposition.report.study import Study
from decomposition.report.wording import visible
from decomposition.results.write import output_folder, write_whole

MARKDOWN_NAME = "report.md"
COMPARISON_MARKDOWN = "comparison.md"

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$&"} | {"\n": " ", "\r": " "})


def write_markdown(
    tree_or_path: xr.DataTree | str | os.PathLike[str], folder: str | os.PathLike[str]
) -> Path:
    """Write ``folder/report.md`` with its figures in ``folder/report_figures/``; return its path.

    Raises:
        ResultFileError: there is no readable result at the path.
        StoreError: the folder cannot be written.
    """
    study = Study(as_tree(tree_or_path))
    target = output_folder(folder) / MARKDOWN_NAME
    return _write(report_title(study), report_sections(study), target)


def write_comparison_markdown(
    results: Sequence[xr.DataTree | str | os.PathLike[str]], folder: str | os.PathLike[str]
) -> Path:
    """Write ``folder/comparison.md`` from two or more results; as ``write_comparison``.

    Raises:
        ResultFileError: fewer than two results, or one that cannot be read.
        StoreError: the folder cannot be written.
    """
    found = comparison(results)
    return _write(found.title, found.sections, output_folder(folder) / COMPARISON_MARKDOWN)


def _write(title: str, sections: Sequence[Section], target: Path) -> Path:
    figures = f"{target.stem}_figures"
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                drawing = draw(block.plot(), block.name)
                write_whole(target.parent / figures / f"{block.name}.svg", drawing.svg)
    parts = [f"# {escaped(title)}", *(section_markdown(s, figures) for s in sections)]
    write_whole(target, (visible("\n\n".join(parts)) + "\n").encode("utf-8"))
    return target


def section_markdown(section: Section, figures: str) -> str:
    """One section; pictures of examples are left to the HTML page."""
    blocks = [text for block in section.blocks if (text := _block(block, figures))]
    return "\n\n".join([f"## {section.title}", *blocks])


def table_markdown(table: Table) -> str:
    """A table in the syntax that GitHub and Pandoc read."""
    numeric = [any(table.key(row[i]) for row in table.rows) for i in range(len(table.columns))]
    lines = [
        _line(table.columns),
        "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
        *(_line([table.text(cell) for cell in row]) for row in table.rows),
    ]
    return f"**{escaped(table.caption)}**\n\n" + "\n".join(lines)


def escaped(text: str) -> str:
    """Text whose every character is shown as it is."""
    return text.translate(_SPECIAL)


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(map(escaped, cells)) + " |"


def _block(block: Block, figures: str) -> str:
    match block:
        case Text():
            text = escaped(block.text)
            return f"> {text}" if block.kind in ("note", "missing") else text
        case Items():
            return "\n".join(f"- {escaped(item)}" for item in block.items)
        case Code():
            fence = "```"
            while fence in block.code:
                fence += "`"
            return f"{fence}\n{block.code}\n{fence}"
        case Formula():
            return f"{block.name}: `{block.plain}`"
        case Table():
            return table_markdown(block)
        case Figure():
            picture = f"![{escaped(block.alt)}]({figures}/{block.name}.svg)"
            return f"{picture}\n\n*{escaped(block.caption)}*"
        case Gallery():
            return ""
