"""What a report is made of, before it is HTML or Markdown: sections of text, tables, figures."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from decomposition.report.claims import OUTCOMES, Claim
from decomposition.report.interval import Interval
from decomposition.report.names import damping_of, protocol_label
from decomposition.report.wording import number, percent, span, visible

Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "plain"
    """plain, lead (the answer), use (what to use instead), note (what must not be missed), about
    (what the page is about), missing (what the result does not hold)."""


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Something to copy, such as a command; ``download`` offers it as a file of that name."""

    code: str
    download: str = ""


@dataclass(frozen=True)
class Formula:
    """A definition: MathML for the page, a line of text for Markdown; ours, never a user's."""

    name: str
    mathml: str
    plain: str


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, downloaded as CSV, and shown in a notebook."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shares: bool = False
    """Intervals are shares, shown in per cent."""

    def text(self, cell: Cell) -> str:
        """A cell as the reader sees it."""
        if cell is None:
            return "–"
        if isinstance(cell, str):
            return cell
        if isinstance(cell, Interval):
            return percent(cell) if self.shares else span(cell)
        return f"{cell:,}" if isinstance(cell, int) else number(cell)

    def key(self, cell: Cell) -> str:
        """What a cell is sorted by: a number's digits, or "" for text."""
        value = cell.estimate if isinstance(cell, Interval) else cell
        if isinstance(value, int | float) and math.isfinite(value):
            return repr(float(value))
        return ""

    def hint(self, cell: Cell) -> str:
        """More digits of a rounded cell, for a pointer that rests on it; "" where none are."""
        if isinstance(cell, Interval) and cell.known:
            if cell.exact:
                return f"{cell.estimate:.6g}"
            return f"{cell.estimate:.6g}, from {cell.lower:.6g} to {cell.upper:.6g}"
        return f"{cell:.6g}" if isinstance(cell, float) and math.isfinite(cell) else ""

    def csv(self) -> str:
        """The table as CSV at full precision; an interval is three columns."""
        wide = [
            any(isinstance(row[i], Interval) for row in self.rows) for i in range(len(self.columns))
        ]
        header: list[str] = []
        for column, is_wide in zip(self.columns, wide, strict=True):
            bounds = ("lower", "estimate", "upper")
            header += [f"{column} {b}" for b in bounds] if is_wide else [column]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(csv_text, header))
        for row in self.rows:
            line: list[object] = []
            for cell, is_wide in zip(row, wide, strict=True):
                line += _bounds(cell) if is_wide else [_plain(cell)]
            writer.writerow(line)
        return out.getvalue()


@dataclass(frozen=True)
class Figure:
    """A figure with the words that stand for it and the table behind it."""

    name: str
    alt: str
    """What the figure shows, as a finding, for those who cannot see it."""
    caption: str
    plot: Callable[[], Axes]
    data: Table | None = None


@dataclass(frozen=True)
class Picture:
    """A small grey image with its label."""

    pixels: tuple[tuple[float, ...], ...]
    label: str


@dataclass(frozen=True)
class PictureRow:
    """Pictures side by side under one heading."""

    heading: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """A query and, in rows, the training examples that each rung ranks first."""

    title: str
    rows: tuple[PictureRow, ...]


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
    """A place in the table of claims, ready to show."""

    protocol: str
    css: str
    symbol: str
    word: str
    effect: str
    count: str
    """Cells with this verdict, of all: ``16 of 18``; "" for one cell."""


@dataclass(frozen=True)
class ClaimTable:
    """Claim × protocol; on a phone a card per claim."""

    name: str
    caption: str
    claims: tuple[Claim, ...]
    protocols: tuple[str, ...]
    anchors: dict[str, str]
    """Claim → the place where its cells are listed; empty for one cell, which is not counted."""

    @property
    def heads(self) -> list[str]:
        """The damping protocols for people; the caption names the chain."""
        return [protocol_label(damping_of(p)) for p in self.protocols]

    def verdicts(self, claim: Claim) -> list[Verdict]:
        """A claim's row."""
        return [_verdict(claim, protocol, bool(self.anchors)) for protocol in self.protocols]

    def table(self) -> Table:
        """The same as a plain table, a row per claim and protocol."""
        rows: list[tuple[Cell, ...]] = []
        for claim in self.claims:
            for protocol in self.protocols:
                found = claim.findings[protocol]
                word = found.outcome.said if found.outcome else "not tested"
                counts = (found.counts[o.word] for o in OUTCOMES if self.anchors)
                rows.append((claim.text, protocol, word, found.effect, *counts))
        counted = (f"cells: {o.said}" for o in OUTCOMES if self.anchors)
        columns = ("claim", "protocol", "verdict", "effect", *counted)
        return Table(self.name, self.caption, columns, tuple(rows))


@dataclass(frozen=True)
class Details:
    """Blocks behind a summary, which opens them."""

    anchor: str
    summary: str
    blocks: tuple[Block, ...]


Block = Text | Items | Code | Formula | Table | Figure | Gallery | Columns | ClaimTable | Details

_BEST = ((Figure, Columns, ClaimTable), (Table,))
"""What of a section is in view, as far as it has any."""


@dataclass(frozen=True)
class Filled:
    """One numbered section of a page, filled from a result."""

    anchor: str
    title: str
    words: tuple[Text, ...]
    """The finding, then notes."""
    best: Block | None
    """The one figure, or else table, in view."""
    more: tuple[Block, ...]
    """What opens beneath."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All of it in order."""
        best = () if self.best is None else (self.best,)
        return (*self.words, *best, *self.folds)

    @property
    def folds(self) -> tuple[Block, ...]:
        """The rest behind one summary."""
        if not self.more or (len(self.more) == 1 and isinstance(self.more[0], Details)):
            return self.more
        return (Details(f"{self.anchor}-more", summary(self.more), self.more),)

    @property
    def beside(self) -> bool:
        """Whether the best figure has room beside the words."""
        return isinstance(self.best, Figure)

    def flat(self) -> Iterator[Block]:
        """Its blocks in order, those in columns and behind summaries included."""
        yield from _flat(self.blocks)


LONG = 100
"""Characters of a summary beyond which it names no further block."""


def arranged(anchor: str, title: str, blocks: Sequence[Block]) -> Filled:
    """A section's blocks with its first sentence, its notes and its first figure in view.

    A table of claims counts as a figure; without any the first table is in view. All other blocks
    open beneath, in their order.

    Args:
        anchor: of the section.
        title: its heading.
        blocks: in the reader's order, the finding first.
    """
    best = next(
        (b for kinds in _BEST for b in blocks if isinstance(b, kinds)),
        None,
    )
    first = blocks[0] if isinstance(blocks[0], Text) else None
    words = [b for b in blocks if isinstance(b, Text) and (b is first or b.kind in IN_VIEW)]
    more = [b for b in blocks if b is not best and b not in words and b != Columns(())]
    return Filled(anchor, title, tuple(words), best, tuple(more))


IN_VIEW = ("lead", "use", "note", "about")
"""Kinds of text that are never folded away."""


def summary(blocks: Iterable[Block]) -> str:
    """What is behind a summary: names of tables and figures while there is room, then a mark."""
    names = [name for block in blocks for name in _names(block)]
    told = ""
    for at, name in enumerate(names):
        longer = f"{told} · {name}" if told else name
        if told and len(longer) > LONG:
            return f"{told} · {len(names) - at} more"
        told = longer
    return told or "More"


def _names(block: Block) -> list[str]:
    match block:
        case Table() | ClaimTable():
            return [block.caption]
        case Figure():
            return [re.split(r"[:.;] |\.$", block.alt)[0]]
        case Columns():
            return [name for figure in block.figures for name in _names(figure)][:1]
        case Gallery():
            return [block.title]
        case Details():
            return [block.summary]
    return []


def _flat(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _flat(block.blocks)
        elif isinstance(block, Columns):
            yield from block.figures


def behind(anchor: str, table: Table) -> Details:
    """A long table a click away."""
    return Details(anchor, f"{table.caption}, as a table", (table,))


def missing(what: str) -> Text:
    """A paragraph that says what is not there and why that matters."""
    return Text(what, kind="missing")


def csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before what looks like one."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return visible(text)
    try:
        float(text)
    except ValueError:
        return "'" + visible(text)
    return text


def _plain(cell: Cell) -> object:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, str):
        return csv_text(cell)
    return repr(cell) if isinstance(cell, float) else cell


def _bounds(cell: Cell) -> list[object]:
    if isinstance(cell, Interval):
        return [_plain(v) for v in (cell.lower, cell.estimate, cell.upper)]
    return ["", _plain(cell), ""]


def _verdict(claim: Claim, protocol: str, counted: bool) -> Verdict:
    found = claim.findings[protocol]
    name = protocol_label(damping_of(protocol))
    if found.outcome is None:
        return Verdict(name, "untested", "–", "not tested", "", "")
    effect = span(found.effect) if found.effect.known else "effect undefined"
    one = found.outcome
    count = f"{found.counts[one.word]} of {found.cells}" if counted else ""
    return Verdict(name, one.css, one.symbol, one.said, effect, count)
