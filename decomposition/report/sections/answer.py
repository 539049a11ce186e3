"""The answer in words, and the claims as tested."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial

import xarray as xr

from decomposition.report.claims import OUTCOMES, SUPPORTED, Claim, claims, outcome
from decomposition.report.content import (
    Block,
    Cell,
    ClaimTable,
    Columns,
    Details,
    Figure,
    Table,
    Text,
)
from decomposition.report.figures.claims import plot_claims
from decomposition.report.names import chain_of, chain_title, protocol_label, step_label
from decomposition.report.orders import survival
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.levels import waterfall
from decomposition.report.sections.shares import at_damping
from decomposition.report.verdict import blame, held_back_sentences, sentences, spectral_sentence
from decomposition.report.wording import isolated, joined, plural

ONE_AT_A_TIME = ("leave_one_out", "pbrf")
"""Targets whose masks are single examples."""


def answer(result: Result) -> list[Block]:
    """The verdict and what was studied: of each cell where they are few, counted where many."""
    blocks: list[Block] = []
    if result.attr("description"):
        blocks.append(Text(str(result.attr("description"))))
    if not result.few:
        blocks += [Text(_counted(result), kind="lead")]
    for one in result.each() if result.few else ():
        name = f"{one.name}: " if result.many else ""
        blocks.append(Text(name + " ".join(sentences(one)), kind="plain" if name else "lead"))
        blocks += [] if result.many else _at_a_glance(one)
        blocks += [Text(name + said, kind="note") for said in held_back_sentences(one)]
        blocks.append(Text(name + f"{survival(one)} {spectral_sentence(one)}".strip()))
    blocks.append(Text(_studied(result)))
    if result.json("notes"):
        count = plural(len(result.json("notes")), "warning")
        blocks.append(Text(f"{count} came with this result: see “Limits”.", kind="note"))
    return blocks


def _at_a_glance(one: Result) -> list[Block]:
    """The waterfall of the leading protocol, and which step is largest at every λ."""
    drawn = [waterfall(p, one, f"waterfall-{p}") for p in one.protocols[:1]]
    shown = tuple(figure for figure in (*drawn, at_damping(one, "at-damping")) if figure)
    return [Columns(shown)] if shown else []


def _counted(result: Result) -> str:
    """In how many cells which step is the largest, under each protocol."""
    parts = []
    for protocol in result.protocols:
        found = [blame(one, "lds", protocol) for one in result.each()]
        ends = Counter(
            "undefined (the total is within noise)"
            if not one.defined
            else f"{step_label(one.largest)}"
            if one.largest
            else "not resolved"
            for one in found
            if one is not None and one.known
        )
        if ends:
            told = joined([f"{end} in {count}" for end, count in ends.most_common()])
            parts.append(f"under {protocol_label(protocol)} {told}")
    if not parts:
        return "Attribution quality was not measured, so what the steps cost is not known."
    return f"The largest step of {plural(len(result.cells), 'cell')}: {'; '.join(parts)}."


def _studied(result: Result) -> str:
    sizes = [
        plural(int(result.attr(name)), noun)
        for name, noun in (
            ("parameters", "parameter"),
            ("examples", "training example"),
            ("queries", "query"),
        )
        if str(result.attr(name)).isdigit()
    ]
    size = ", ".join(sizes).replace("querys", "queries")
    masks = result.array("/bank", "masks")
    data = result.group("/attribution")
    about = {} if data is None else data.attrs
    bank = ""
    if masks is not None and about.get("target") in ONE_AT_A_TIME:
        bank = f", {plural(masks.sizes['mask'], 'training example')} removed one at a time"
    elif masks is not None:
        bank = f", {plural(masks.sizes['mask'], 'retrained subset')}"
    if result.many:
        problem = f"{plural(len(result.cells), 'cell')}: {_names(result)}."
    else:
        problem = f"Problem: {isolated(result.attr('problem'))} ({size}{bank})."
    return (
        f"{problem} Numbers in brackets are "
        f"{intervals(result)} from a paired bootstrap; a number without brackets is exact, a "
        "count, or called an estimate where it stands. "
        f"{_meaning(str(about.get('target', 'loss')), str(about.get('measure', '')))}"
    )


def _names(result: Result) -> str:
    names = list(result.names.values())
    return joined(names) if result.few else f"{names[0]} to {names[-1]}"


def _meaning(target: str, measure: str) -> str:
    """What the page calls LDS."""
    if target in ("", "loss"):
        return (
            "LDS is the linear datamodelling score: how well a rung's influence scores rank what "
            "really happens to the queries when models are retrained on subsets."
        )
    return f"The target is {target}: what this page calls LDS is here {measure}."


def claims_blocks(result: Result) -> list[Block]:
    """Of many cells: the table of claims, its figure, and the cells behind each."""
    found = claims(result)
    if not found or not result.many:
        return []
    anchors = {claim.key: f"claim-{i}" for i, claim in enumerate(found, start=1)}
    chains = list(dict.fromkeys(map(chain_of, found[0].findings)))
    blocks: list[Block] = [Text(_summary(found), kind="lead"), *_tables(found, anchors)]
    blocks.append(
        Text(
            f"In brackets: {intervals(result)} of the effect over all cells. A claim is supported "
            "or contradicted only where its test says so at that level; the rest is not resolved. "
            "It can be decided over all cells together and still be open in each of them alone."
        )
    )
    shown = tuple(Columns((_figure(result, found, chain),), wide=True) for chain in chains)
    blocks.append(Details("claims-figure", "The same as a figure", shown))
    data = result.group("/claims")
    assert data is not None
    return [*blocks, *(_cells(result, data, claim, anchors[claim.key]) for claim in found)]


def own_claim_blocks(result: Result) -> list[Block]:
    """Of one cell: what it says on every claim; there is nothing to count or to pool."""
    found = claims(result)
    if not found or result.many:
        return []
    said = (
        f"{_summary(found)} One cell: what holds here need not hold elsewhere. In brackets: "
        f"{intervals(result)} of the effect."
    )
    return [Text(said), *_tables(found, {})]


def _tables(found: list[Claim], anchors: dict[str, str]) -> Iterator[ClaimTable]:
    """A table for every chain; ``anchors`` leads from a claim to its cells, if there are many."""
    chains = list(dict.fromkeys(map(chain_of, found[0].findings)))
    for chain in chains:
        protocols = tuple(p for p in found[0].findings if chain_of(p) == chain)
        name = f"claims-{chain}" if chain else "claims"
        yield ClaimTable(name, _caption(chain, len(chains)), tuple(found), protocols, anchors)


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


def _figure(result: Result, found: list[Claim], chain: str) -> Figure:
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
        partial(plot_claims, result.tree, chain=chain),
    )


def _cells(result: Result, data: xr.Dataset, claim: Claim, anchor: str) -> Details:
    protocols = list(claim.findings)
    rows = tuple(
        (result.names[one.cells[0]], *_row(one, claim.key, protocols)) for one in result.each()
    )
    heads = (f"{what}, {protocol_label(p)}" for p in protocols for what in ("verdict", "effect"))
    found = Table(f"{anchor}-cells", claim.text, ("cell", *heads), rows)
    note = "p-values are adjusted as the study says; the effect is that of the cell alone."
    return Details(anchor, f"{claim.text} {plural(len(rows), 'cell')}", (found, Text(note)))


def _row(one: Result, key: str, protocols: list[str]) -> list[Cell]:
    row: list[Cell] = []
    data = one.group("/claims")
    assert data is not None
    for protocol in protocols:
        here = {"claim": key, "protocol": protocol}
        known = "verdict" in data and protocol in labels(data["protocol"], "protocol")
        end = outcome(float(data["verdict"].sel(here))) if known else None
        p = float(data["p_value"].sel(here)) if "p_value" in data else math.nan
        effect = interval(data["effect"], **here) if "effect" in data else None
        tested = end is not None and (math.isfinite(p) or (effect is not None and effect.known))
        chance = "" if not math.isfinite(p) else " (p < 0.001)" if p < 0.001 else f" (p = {p:.3f})"
        row += [f"{end}{chance}" if tested else "not tested", effect]
    return row
