"""The claims as a Markdown table, for a README."""

from __future__ import annotations

import os

import xarray as xr

from decomposition.report.grid.cells import (
    Grid,
    chain_of,
    chain_title,
    damping_of,
    protocol_label,
)
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
    chains = list(dict.fromkeys(map(chain_of, found[0].findings)))
    tables = [_table(found, chain, named=len(chains) > 1) for chain in chains]
    return "\n\n".join([*tables, _below(grid)]) + "\n"


def _table(found: list[Claim], chain: str, named: bool) -> str:
    """The table of one chain's protocols, under the chain's name where there are several."""
    protocols = [p for p in found[0].findings if chain_of(p) == chain]
    title = [f"**{escaped(chain_title(chain))}**", ""] if named else []
    head = ["claim", *(escaped(protocol_label(damping_of(p))) for p in protocols)]
    rule = "|---" * len(head) + "|"
    rows = (_line([_sentence(c), *(_cell(c.findings[p]) for p in protocols)]) for c in found)
    return "\n".join([*title, _line(head), rule, *rows])


def _sentence(claim: Claim) -> str:
    effect = f"<br>*effect: {escaped(claim.effect)}*" if claim.effect else ""
    return escaped(claim.text) + effect


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
