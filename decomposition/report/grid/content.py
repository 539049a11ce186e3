"""What a study's page has beside the blocks of every report."""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.report.content import Block, Cell, Figure, Table
from decomposition.report.grid.cells import damping_of, protocol_label
from decomposition.report.grid.claims import OUTCOMES, Claim
from decomposition.report.wording import span


@dataclass(frozen=True)
class Details:
    """Blocks behind a summary, which opens them."""

    anchor: str
    summary: str
    blocks: tuple[Block | Columns, ...]


@dataclass(frozen=True)
class Columns:
    """Figures side by side, up to three in a row; one below the other on a phone."""

    figures: tuple[Figure, ...]
    wide: bool = False
    """Whether a figure may be as wide as the text."""

    @property
    def css(self) -> str:
        """How wide one of them may be: the whole page, half of it, or a third."""
        return "whole" if self.wide else "half" if len(self.figures) in (1, 2, 4) else "third"


@dataclass(frozen=True)
class Verdict:
    """A cell of the table of claims, ready to show."""

    protocol: str
    css: str
    symbol: str
    word: str
    effect: str
    count: str


@dataclass(frozen=True)
class ClaimTable:
    """Claim × protocol; on a phone a card per claim."""

    name: str
    caption: str
    claims: tuple[Claim, ...]
    protocols: tuple[str, ...]
    anchors: dict[str, str]
    """Claim → the place where its cells are listed."""

    @property
    def heads(self) -> list[str]:
        """The damping protocols for people; the caption names the chain."""
        return [protocol_label(damping_of(p)) for p in self.protocols]

    def verdicts(self, claim: Claim) -> list[Verdict]:
        """A claim's row."""
        return [_verdict(claim, protocol) for protocol in self.protocols]

    def csv(self) -> str:
        """The table as CSV at full precision, a line per claim and protocol."""
        return self.table().csv()

    def table(self) -> Table:
        """The same as a plain table, a row per claim and protocol."""
        rows: list[tuple[Cell, ...]] = []
        for claim in self.claims:
            for protocol in self.protocols:
                found = claim.findings[protocol]
                word = found.outcome.word if found.outcome else "not tested"
                counts = (found.counts[o.word] for o in OUTCOMES)
                rows.append((claim.text, protocol, word, found.effect, *counts))
        counted = (f"cells: {o.word}" for o in OUTCOMES)
        columns = ("claim", "protocol", "verdict", "effect", *counted)
        return Table(self.name, self.caption, columns, tuple(rows))


StudyBlock = Block | Details | Columns | ClaimTable


@dataclass(frozen=True)
class StudySection:
    """One numbered section of a study's page."""

    anchor: str
    title: str
    blocks: tuple[StudyBlock, ...]


def _verdict(claim: Claim, protocol: str) -> Verdict:
    found = claim.findings[protocol]
    name = protocol_label(damping_of(protocol))
    if found.outcome is None:
        return Verdict(name, "untested", "–", "not tested", "", "")
    effect = span(found.effect) if found.effect.known else "effect undefined"
    one = found.outcome
    return Verdict(name, one.css, one.symbol, one.word, effect, found.count)
