"""The answer in words, and the claims as tested."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.claims import (
    OUTCOMES,
    SUPPORTED,
    UNKNOWN,
    Claim,
    ClaimsMap,
    claims,
    claims_maps,
    outcome,
)
from decomposition.report.content import (
    Block,
    ClaimTable,
    Columns,
    Details,
    Figure,
    Items,
    Table,
    Text,
)
from decomposition.report.figures.bands import plot_largest
from decomposition.report.figures.claims import plot_claims, plot_claims_map
from decomposition.report.names import (
    CHAIN_MARK,
    chain_of,
    chain_title,
    protocol_label,
    step_label,
)
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.levels import waterfall
from decomposition.report.sections.shares import at_damping
from decomposition.report.verdict import Blame, blame, held_back_sentences, sentences, under
from decomposition.report.wording import fixed, joined, plural, span

SHOWN = 2
"""Warnings of a result that stand in view."""
LED_BY = 2
"""Protocols of which the answer for many cells speaks; a table has all."""
NOISY = 0.5
"""Split-half reliability below which the truth is mostly noise."""
REMOVED = "training examples removed one at a time"
ONE_AT_A_TIME = ("leave_one_out", "pbrf")
"""Targets whose masks are single examples."""


def answer(result: Result) -> list[Block]:
    """The verdict, what to use, what must not be missed; the waterfall and the strip over λ."""
    blocks: list[Block] = []
    if not result.few:
        blocks.append(Text(_counted(result), kind="lead"))
    for one in result.each() if result.few else ():
        name = f"{one.name}: " if result.many else ""
        blocks.append(Text(name + " ".join(sentences(one)), kind="lead"))
    for one in result.each() if result.few else ():
        name = f"{one.name}: " if result.many else ""
        said = [*held_back_sentences(one), *_ceiling(one)]
        blocks += [Text(name + note, kind="note") for note in said]
    use = result.said("/recommendation", "sentence")
    if use:
        blocks.insert(1, Text(use, kind="use"))
    blocks += _warnings([str(note) for note in result.json("notes")])
    target = _target(result)
    if target:
        blocks.append(Text(target, kind="about"))
    if result.attr("description"):
        blocks.append(Text(str(result.attr("description")), kind="about"))
    return [*blocks, *_at_a_glance(result)]


def _at_a_glance(one: Result) -> list[Block]:
    """The waterfall of the leading protocol, and which step is largest at every λ."""
    if one.many:
        return _everywhere(one)
    drawn = [waterfall(p, one, f"waterfall-{p}") for p in one.protocols[:1]]
    shown = tuple(figure for figure in (*drawn, at_damping(one, "at-damping")) if figure)
    return [Columns(shown)] if shown else []


def _everywhere(result: Result) -> list[Block]:
    """Of many cells: the step with the largest loss at every λ, cell by cell."""
    if result.known("/shares/at_damping", "drop") is None:
        return []
    figure = Figure(
        "largest",
        f"The step that costs most LDS at one λ for all rungs, in each of "
        f"{plural(len(result.cells), 'cell')}.",
        f"One λ for all rungs. Full colour: the {intervals(result)[:-1]} of the drop lies above "
        "zero and above those of all other steps; pale: not resolved; grey: no step loses.",
        partial(plot_largest, result.tree),
    )
    return [figure]


def _warnings(notes: list[str]) -> list[Block]:
    """Those that came with the result: in view where they are few, else a click away."""
    if len(notes) <= SHOWN:
        return [Text(note, kind="note") for note in notes]
    told = f"{plural(len(notes), 'warning')} came with this result"
    return [Details("warnings", told, (Items(tuple(notes)),))]


def _ceiling(one: Result) -> list[str]:
    """Truth that is mostly noise makes every LDS low."""
    reliability = one.array("/attribution", "reliability")
    if reliability is None:
        return []
    value = interval(reliability)
    if not value.known or value.estimate >= NOISY:
        return []
    return [
        f"The retrained outputs are mostly noise: split-half reliability {span(value)}. Every LDS "
        "is low for that reason; more repeats (--repeats) raise it."
    ]


def _counted(result: Result) -> str:
    """In how many cells K-FAC loses, and which step is the largest there, under each protocol."""
    parts = []
    for protocol in result.protocols[:LED_BY]:
        found = [b for one in result.each() if (b := blame(one, "lds", protocol)) and b.known]
        ends = Counter(_end(b) for b in found)
        if ends:
            told = joined([f"{end} in {count}" for end, count in ends.most_common()])
            parts.append(f"{protocol_label(protocol)}: {told}")
    if not parts:
        return "Attribution quality was not measured, so what the steps cost is not known."
    return (
        f"{_lost(result)} The largest step, counted over {plural(len(result.cells), 'cell')} – "
        f"{'; '.join(parts)}."
    )


def _end(found: Blame) -> str:
    if not found.defined:
        return "no resolved loss"
    return step_label(found.largest) if found.largest else "not resolved"


def _lost(result: Result) -> str:
    """In how many cells the chain loses LDS for certain, and how much in the median."""
    found = [b for one in result.each() if (b := blame(one, "lds", result.protocols[0]))]
    totals = [b.total for b in found if b.total.known]
    if not totals:
        return ""
    lost = sum(total.lower > 0 for total in totals)
    middle = float(np.median([total.estimate for total in totals]))
    return (
        f"Replacing the exact Hessian by K-FAC costs attribution quality (LDS) in {lost} of "
        f"{plural(len(totals), 'cell')}, {fixed(middle)} in the median, "
        f"{under(result.protocols[0])}."
    )


def studied(result: Result) -> str:
    """What was studied, its size and its truth, for the line under the heading."""
    if result.many:
        names = list(result.names.values())
        told = joined(names) if result.few else f"{names[0]} to {names[-1]}"
        return f"{plural(len(result.cells), 'cell')}: {told}"
    nouns = {"parameters": "parameter", "examples": "training example"}
    parts = [
        plural(int(result.attr(name)), noun)
        for name, noun in nouns.items()
        if str(result.attr(name)).isdigit()
    ]
    if str(result.attr("queries")).isdigit():
        parts.append(f"{int(result.attr('queries')):,} queries")
    masks = result.array("/bank", "masks")
    alone = result.said("/attribution", "target") in ONE_AT_A_TIME
    if masks is not None:
        count = f"{masks.sizes['mask']:,}"
        parts.append(f"{count} {REMOVED if alone else 'models retrained'}")
    return " · ".join(parts)


def _target(result: Result) -> str:
    """What the page calls LDS where that is not the usual score."""
    target = result.said("/attribution", "target")
    if target in ("", "loss"):
        return ""
    measure = result.said("/attribution", "measure")
    return f"The target is {target}: what this page calls LDS is here {measure}."


def claims_blocks(result: Result) -> list[Block]:
    """Of many cells: the table of claims, its figure, and the cells behind each."""
    found = claims(result)
    if not found or not result.many:
        return []
    anchors = {claim.key: f"claim-{i}" for i, claim in enumerate(found, start=1)}
    chains = list(dict.fromkeys(map(chain_of, found[0].findings)))
    data = result.group("/claims")
    assert data is not None
    return [
        Text(f"{_summary(found)} In brackets: {intervals(result)} of the effect over all cells."),
        *_tables(found, anchors),
        *_effects(found, [*_steps_of_chains(data, chains), *_neighbours(result)]),
        *(_figure(result, found, chain) for chain in chains),
        *_where(result, found),
        *(_cells(result, data, claim, anchors[claim.key]) for claim in found),
    ]


def own_claim_blocks(result: Result) -> list[Block]:
    """Of one cell: what it says on every claim; there is nothing to count or to pool."""
    found = claims(result)
    if not found or result.many:
        return []
    said = f"{_summary(found)} What holds in this one model need not hold elsewhere."
    effects = _effects(found, _neighbours(result))
    every = (*_tables(found, {}), *_where(result, found), *effects)
    return [Text(said), Details("every-claim", "Every claim under every protocol", every)]


def _steps_of_chains(data: xr.Dataset, chains: list[str]) -> list[Block]:
    """The steps of the paper's chain, which are not all those of the exact one."""
    steps = json.loads(data.attrs.get("chains", "{}"))
    older = "in this older result its step “eigenvalues” carries K-FAC's factored damping too"
    told = {chain: steps.get(f"{chain}{CHAIN_MARK}", []) for chain in chains if chain}
    return [
        Text(f"{chain_title(chain)}: {joined(list(map(step_label, names))) or older}.")
        for chain, names in told.items()
    ]


def _neighbours(result: Result) -> list[Block]:
    """How many pairs of neighbours in the chain are in order, under every protocol."""
    pairs = result.array("/claims", "neighbours")
    if pairs is None:
        return []
    if result.many:
        pairs = pairs.mean("cell")
    rows = tuple(
        (protocol, *(100.0 * float(pairs.sel(protocol=protocol, outcome=o.word)) for o in OUTCOMES))
        for protocol in labels(pairs, "protocol")
    )
    columns = ("protocol", "in order (%)", "not resolved (%)", "reversed (%)")
    caption = (
        "Pairs of neighbouring rungs in which the better approximation has the higher LDS, of all "
        "pairs; adjusted over pairs and cells"
    )
    return [Table("neighbours", caption, columns, rows)]


def _effects(found: list[Claim], of_chains: list[Block]) -> list[Block]:
    """What the number beside each verdict is, and when a verdict is given."""
    told = tuple(f"{claim.text} Effect: {claim.effect}." for claim in found if claim.effect)
    words = Text(
        "A claim is supported, not reproduced or reversed only where its test says so at the level "
        "of the intervals, under the errors, dampings and retraining of this page, which need not "
        "be its authors'; the rest is not resolved. A share of a loss is not tested where nothing "
        "is lost. A claim can be decided over all cells together and still be open in each of them "
        "alone."
    )
    about = (words, *of_chains, Items(told))
    return [Details("effects", "What each effect is", about)] if told else []


ABSOLUTE = "/claims/map/absolute"


def _where(result: Result, found: list[Claim]) -> list[Block]:
    """At which λ each claim holds, in words and as maps: a fold for every chain and inversion."""
    blocks = []
    for path, unit in (
        ("/claims/map", "in units of tr G / min(P, N·C)"),
        (ABSOLUTE, "λ itself, levels between the grid's interpolated in log λ"),
    ):
        for one in claims_maps(result, path):
            mark = "-".join(filter(None, ("absolute" * (path == ABSOLUTE), *_marks(one))))
            lead = Text(
                f"At one λ for all rungs, {unit}; protocols and rules, which say one themselves, "
                "stand in the tables of claims:"
            )
            said = Items(tuple(f"{sentence}." for sentence in one.sentences.values()))
            of = f" ({one.name})" if one.name else ""
            summary = f"At which {'absolute ' * (path == ABSOLUTE)}λ each claim holds{of}"
            name = f"claims-where-{mark}".rstrip("-")
            blocks.append(Details(name, summary, (lead, said, *_maps(result, found, one, mark))))
    return blocks


def _marks(one: ClaimsMap) -> tuple[str, ...]:
    """Of a map among the anchors of the page."""
    return tuple(part.replace(" ", "-").replace(":", "-") for part in one.name.split(", ") if part)


def _maps(result: Result, found: list[Claim], one: ClaimsMap, mark: str) -> Iterator[Figure]:
    """A figure for every claim of many cells, one for all claims of a single cell."""
    texts = {claim.key: claim.text for claim in found if claim.key in one.sentences}
    for key, text in (texts if result.many else {"": "Every claim."}).items():
        yield Figure(
            f"claims-map-{key or 'all'}-{mark}".rstrip("-"),
            f"Verdicts at one λ for all rungs. {one.sentences.get(key, '')}",
            f"{text} Verdicts at one λ for all rungs, adjusted over all places of a map; the marks "
            "are the rungs at their own best λ.",
            partial(
                plot_claims_map,
                result.tree,
                claim=key,
                chain=one.chain,
                rule=one.rule,
                absolute=one.axis == "damping",
            ),
        )


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
            parts.append(f"{count} {'is' if count == 1 else 'are'} {one.said} under every protocol")
            if count == 1:
                parts[-1] += f" (“{found[ends.index({one})].text.rstrip('.')}”)"
    mixed = sum(len(end) > 1 for end in ends)
    if mixed:
        told = "verdict on 1 depends" if mixed == 1 else f"verdicts on {mixed} depend"
        parts.append(f"the {told} on the protocol")
    return f"Of {plural(len(found), 'claim')}, {joined(parts) or 'none was tested'}."


def _caption(chain: str, count: int) -> str:
    key = ", ".join(map(str, OUTCOMES))
    return f"{chain_title(chain)}: {key}" if count > 1 else key.capitalize()


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
        "In how many cells each claim is supported, not resolved or not reproduced; the words are "
        "the verdict over all cells.",
        partial(plot_claims, result.tree, chain=chain),
    )


def _cells(result: Result, data: xr.Dataset, claim: Claim, anchor: str) -> Details:
    """A table for every chain: a row per cell, a column per protocol."""
    tables: list[Block] = []
    for chain in dict.fromkeys(map(chain_of, claim.findings)):
        protocols = [p for p in claim.findings if chain_of(p) == chain]
        rows = tuple(
            (one.name, *(_verdict(one, claim, p) for p in protocols)) for one in result.each()
        )
        heads = (protocol_label(p) for p in protocols)
        name = f"{anchor}-cells{'-' if chain else ''}{chain}"
        tables.append(Table(name, claim.text, ("cell", *heads), rows))
    count = plural(len(result.cells), "cell")
    note = "In brackets the effect of the cell alone; p-values are adjusted as the study says."
    return Details(anchor, f"{claim.text} {count}", (*tables, Text(note)))


def _verdict(one: Result, claim: Claim, protocol: str) -> str:
    """Verdict, effect and p-value of a claim in a cell."""
    data = one.group("/claims")
    assert data is not None
    if "verdict" not in data or protocol not in labels(data["protocol"], "protocol"):
        return "not tested"
    here = {"claim": claim.key, "protocol": protocol}
    end, p = outcome(float(data["verdict"].sel(here))), math.nan
    if "p_value" in data:
        p = float(data["p_value"].sel(here))
    effect = interval(data["effect"], **here) if "effect" in data else UNKNOWN
    if end is None or not (math.isfinite(p) or effect.known):
        return "not tested"
    size = f" {span(effect)}" if effect.known else ""
    chance = "" if not math.isfinite(p) else " (p < 0.001)" if p < 0.001 else f" (p = {p:.3f})"
    return f"{claim.said(end)}{size}{chance}"
