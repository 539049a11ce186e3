"""The claims as a Markdown table, for a README."""

from __future__ import annotations

import os

import xarray as xr

from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.claims import Claim, Finding, claims
from decomposition.report.grid.open import open_study
from decomposition.report.markdown import escaped
from decomposition.report.wording import plural, span


def claims_markdown(tree_or_path: xr.DataTree | str | os.PathLike[str]) -> str:
    """Claim × protocol, each with its verdict, its effect and the number of cells.

    Below the table stand the number of cells, the date and the command that makes it again.

    Args:
        tree_or_path: a study, or the file or folder that holds one.

    Raises:
        ResultFileError: there is no readable study at the path.
    """
    grid = Grid(open_study(tree_or_path))
    found = claims(grid)
    if not found:
        return "The study tested no claims.\n"
    protocols = list(found[0].findings)
    head = ["claim", *(escaped(protocol_label(p)) for p in protocols)]
    lines = [_line(head), "|---" * len(head) + "|", *(_line(_row(c)) for c in found)]
    return "\n".join([*lines, "", _below(grid), ""])


def _row(claim: Claim) -> list[str]:
    effect = f"<br>*effect: {escaped(claim.effect)}*" if claim.effect else ""
    return [escaped(claim.text) + effect, *(_cell(f) for f in claim.findings.values())]


def _cell(finding: Finding) -> str:
    if finding.outcome is None:
        return "–"
    effect = [escaped(span(finding.effect))] if finding.effect.known else []
    parts = [f"{finding.outcome.symbol} **{finding.outcome.word}**", *effect, finding.count]
    return "<br>".join(parts)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _below(grid: Grid) -> str:
    level = grid.attr("ci_level")
    bounds = f"{100 * float(level):g}% intervals" if level != "" else "intervals"
    made = escaped(str(grid.attr("created_at"))[:10])
    text = f"{plural(len(grid.cells), 'cell')}; in brackets {bounds} of the pooled effect."
    command = str(grid.attr("command")).replace("`", "'").replace("\n", " ")
    return f"{text} Made on {made} by `{command}`." if command else text
