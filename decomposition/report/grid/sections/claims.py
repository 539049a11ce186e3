"""Section 1: every claim under every protocol, and cell by cell."""

from __future__ import annotations

import math
from functools import partial

import xarray as xr

from decomposition.report.content import Cell, Figure, Items, Table, Text, missing
from decomposition.report.grid.cells import Grid, chain_of, chain_title, protocol_label
from decomposition.report.grid.claims import OUTCOMES, SUPPORTED, Claim, outcome
from decomposition.report.grid.claims import claims as found_claims
from decomposition.report.grid.content import ClaimTable, Columns, Details, StudyBlock, StudySection
from decomposition.report.grid.figures.claims import plot_claims
from decomposition.report.study import interval, intervals, labels
from decomposition.report.wording import joined, plural

TITLE = "The claims"


def claims(grid: Grid) -> StudySection:
    """The table of claims, its figure, the cells behind each, and the study's own notes."""
    head: list[StudyBlock] = []
    if grid.attr("description"):
        head.append(Text(str(grid.attr("description"))))
    notes = list(grid.json("notes"))
    tail: list[StudyBlock] = [Text("Notes that came with the study:", kind="note")] if notes else []
    tail += [Items(tuple(map(str, notes)))] if notes else []
    found = found_claims(grid)
    if not found:
        text = "The study tested no claims; its levels and shares follow."
        return StudySection("claims", TITLE, (*head, missing(text), *tail))
    anchors = {claim.key: f"claim-{i}" for i, claim in enumerate(found, start=1)}
    chains = list(dict.fromkeys(map(chain_of, found[0].findings)))
    blocks: list[StudyBlock] = [Text(_summary(found), kind="lead"), *head]
    for chain in chains:
        protocols = tuple(p for p in found[0].findings if chain_of(p) == chain)
        name = f"claims-{chain}" if chain else "claims"
        blocks.append(
            ClaimTable(name, _caption(chain, len(chains)), tuple(found), protocols, anchors)
        )
    blocks.append(
        Text(
            f"In brackets: {intervals(grid)} of the effect over all cells. A claim is supported or "
            "contradicted only where its test says so at that level; the rest is not resolved. It "
            "can be decided over all cells together and still be open in each of them alone."
        )
    )
    shown = tuple(Columns((_figure(grid, found, chain),), wide=True) for chain in chains)
    blocks.append(Details("claims-figure", "The same as a figure", shown))
    data = grid.group("/claims")
    assert data is not None
    blocks += [_cells(grid, data, claim, anchors[claim.key]) for claim in found]
    return StudySection("claims", TITLE, (*blocks, *tail))


def _summary(found: list[Claim]) -> str:
    ends = [{f.outcome for f in claim.findings.values()} - {None} for claim in found]
    parts = []
    for one in OUTCOMES:
        count = ends.count({one})
        if count:
            parts.append(f"{count} {'is' if count == 1 else 'are'} {one.word} under every protocol")
    mixed = sum(len(end) > 1 for end in ends)
    if mixed:
        depends = "depends" if mixed == 1 else "depend"
        parts.append(f"the verdict on {mixed} {depends} on the protocol")
    return f"Of {plural(len(found), 'claim')}, {joined(parts) or 'none was tested'}."


def _caption(chain: str, count: int) -> str:
    if count == 1:
        return "Claims by damping protocol"
    return f"{chain_title(chain)}: claims by damping protocol"


def _figure(grid: Grid, found: list[Claim], chain: str) -> Figure:
    parts = []
    for claim in found:
        mine = {p: f for p, f in claim.findings.items() if chain_of(p) == chain}
        most = [p for p, f in mine.items() if f.outcome == SUPPORTED]
        names = joined([protocol_label(p) for p in most]) or "no protocol"
        parts.append(f"“{claim.text}” is supported under {names}")
    return Figure(
        f"claims-{chain or 'exact'}",
        f"{'; '.join(parts)}.",
        "In how many cells each claim is supported, not resolved or contradicted; the words are "
        "the verdict over all cells.",
        partial(plot_claims, grid.tree, chain=chain),
    )


def _cells(grid: Grid, data: xr.Dataset, claim: Claim, anchor: str) -> Details:
    protocols = list(claim.findings)
    rows = tuple(
        (grid.names.get(cell, f"cell {cell}"), *_row(data, claim.key, cell, protocols))
        for cell in ([int(c) for c in data["cell"].values] if "cell" in data.coords else [])
    )
    heads = (f"{what}, {protocol_label(p)}" for p in protocols for what in ("verdict", "effect"))
    table = Table(f"{anchor}-cells", claim.text, ("cell", *heads), rows)
    note = "p-values are adjusted as the study says; the effect is that of the cell alone."
    return Details(anchor, f"{claim.text} {plural(len(rows), 'cell')}", (table, Text(note)))


def _row(data: xr.Dataset, key: str, cell: int, protocols: list[str]) -> list[Cell]:
    row: list[Cell] = []
    place = {"claim": key, "cell": cell}
    for protocol in protocols:
        here = {**place, "protocol": protocol}
        known = "verdict" in data and protocol in labels(data["protocol"], "protocol")
        end = outcome(float(data["verdict"].sel(here))) if known else None
        p = float(data["p_value"].sel(here)) if "p_value" in data else math.nan
        effect = interval(data["effect"], **here) if "effect" in data else None
        tested = end is not None and (math.isfinite(p) or (effect is not None and effect.known))
        chance = "" if not math.isfinite(p) else " (p < 0.001)" if p < 0.001 else f" (p = {p:.3f})"
        row += [f"{end}{chance}" if tested else "not tested", effect]
    return row
