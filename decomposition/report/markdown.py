"""The report as Markdown, for a README or a repository of a paper: text, tables, figure files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from decomposition.report.claims import Claim, Finding, claims
from decomposition.report.content import (
    Block,
    ClaimTable,
    Code,
    Columns,
    Details,
    Figure,
    Filled,
    Formula,
    Gallery,
    Items,
    Table,
    Text,
)
from decomposition.report.drawing import draw
from decomposition.report.names import chain_of, chain_title, damping_of, protocol_label
from decomposition.report.page import Source, as_tree, report_sections, report_title, several
from decomposition.report.result import Result, intervals
from decomposition.report.wording import plural, span, visible
from decomposition.results.write import output_folder, write_whole

MARKDOWN_NAME = "report.md"
COMPARISON_MARKDOWN = "comparison.md"

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$&"} | {"\n": " ", "\r": " "})


def write_markdown(results: Source | Sequence[Source], folder: str | os.PathLike[str]) -> Path:
    """Write ``folder/report.md`` with its figures in ``folder/report_figures/``; return its path.

    Several results are the cells of one page, ``folder/comparison.md``.

    Raises:
        ResultFileError: there is no readable result at a path.
        StoreError: the folder cannot be written.
    """
    result = Result(as_tree(results))
    name = COMPARISON_MARKDOWN if several(results) else MARKDOWN_NAME
    target = output_folder(folder) / name
    sections = report_sections(result)
    figures = f"{target.stem}_figures"
    for block in (block for section in sections for block in section.flat()):
        if isinstance(block, Figure):
            drawing = draw(block.plot(), block.name)
            write_whole(target.parent / figures / f"{block.name}.svg", drawing.svg)
    parts = [f"# {escaped(report_title(result))}"]
    parts += [section_markdown(section, figures) for section in sections]
    write_whole(target, (visible("\n\n".join(parts)) + "\n").encode("utf-8"))
    return target


def section_markdown(section: Filled, figures: str) -> str:
    """One section; pictures of examples are left to the HTML page."""
    return "\n\n".join([f"## {section.title}", *_blocks(section.blocks, figures)])


def _blocks(blocks: Iterable[Block], figures: str) -> list[str]:
    return [text for block in blocks if (text := _block(block, figures))]


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
        case Columns():
            return "\n\n".join(_blocks(block.figures, figures))
        case Details():
            return "\n\n".join([f"### {escaped(block.summary)}", *_blocks(block.blocks, figures)])
        case ClaimTable():
            table = _claims(block.claims, block.protocols, bool(block.anchors))
            return f"**{escaped(block.caption)}**\n\n{table}"


def claims_markdown(results: Source | Sequence[Source]) -> str:
    """Claim × protocol, each with its verdict, its effect and the number of cells.

    Below the table stand the number of cells, the date and the command that makes it again.

    Args:
        results: as for ``write_markdown``.

    Raises:
        ResultFileError: there is no readable result at a path.
    """
    result = Result(as_tree(results))
    found = claims(result)
    if not found:
        return "No claims were tested.\n"
    chains = list(dict.fromkeys(map(chain_of, found[0].findings)))
    tables = []
    for chain in chains:
        named = f"**{escaped(chain_title(chain))}**\n\n" if len(chains) > 1 else ""
        protocols = [p for p in found[0].findings if chain_of(p) == chain]
        tables.append(named + _claims(found, protocols, result.many))
    return "\n\n".join([*tables, _below(result)]) + "\n"


def _claims(found: Iterable[Claim], protocols: Sequence[str], counted: bool) -> str:
    head = ["claim", *(escaped(protocol_label(damping_of(p))) for p in protocols)]
    rows = [[_sentence(c), *(_finding(c.findings[p], counted) for p in protocols)] for c in found]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _sentence(claim: Claim) -> str:
    effect = f"<br>*effect: {escaped(claim.effect)}*" if claim.effect else ""
    return escaped(claim.text) + effect


def _finding(finding: Finding, counted: bool) -> str:
    if finding.outcome is None:
        return "–"
    effect = [escaped(span(finding.effect))] if finding.effect.known else []
    parts = [f"{finding.outcome.symbol} **{finding.outcome.said}**", *effect]
    return "<br>".join([*parts, finding.count] if counted else parts)


def _below(result: Result) -> str:
    made = escaped(str(result.attr("created_at"))[:10])
    bounds = intervals(result)
    text = f"{plural(len(result.cells), 'cell')}; in brackets {bounds} of the pooled effect."
    command = str(result.attr("command")).replace("`", "'").replace("\n", " ")
    return f"{text} Made on {made} by `{command}`." if command else text
