"""What of a section is in view, and what is a click away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from decomposition.report.content import (
    Block,
    ClaimTable,
    Columns,
    Details,
    Figure,
    Gallery,
    Table,
    Text,
)
from decomposition.report.wording import plural

LONG = 110
"""Characters of the longest summary that names every figure behind it."""


def folded(anchor: str, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """A section's words and its first figure in view, the rest behind summaries.

    Without a figure the first table is in view; a section of words alone stays as it is, and notes
    and tables of claims are always in view. A paragraph belongs to what follows it.

    Args:
        anchor: of the section, in front of those of its folds.
        blocks: of the section, in the reader's order.
    """
    best = _best(blocks)
    if best is None:
        return tuple(blocks)
    shown: list[Block] = list(blocks[: blocks.index(best)])
    folds: list[list[Block]] = [[]]
    rest: list[Block] = [b for b in shown if not isinstance(b, Text | ClaimTable)]
    shown = [b for b in shown if isinstance(b, Text | ClaimTable)] + [best]
    for block in [*rest, *blocks[blocks.index(best) + 1 :]]:
        if isinstance(block, ClaimTable) or (isinstance(block, Text) and block.kind != "plain"):
            shown.append(block)
            continue
        last = folds[-1]
        together = isinstance(block, Figure) and isinstance(last[-1], Figure) if last else False
        if last and not together and not isinstance(last[-1], Text):
            folds.append([])
        folds[-1].append(block)
    return (*shown, *_summarised(anchor, folds))


def _best(blocks: Sequence[Block]) -> Block | None:
    for kinds in ((Figure, Columns), (ClaimTable, Table)):
        for block in blocks:
            if isinstance(block, kinds):
                return block
    return None


def _summarised(anchor: str, folds: Iterable[Sequence[Block]]) -> Iterable[Block]:
    for number, fold in enumerate(folds, start=1):
        words = all(isinstance(block, Text) for block in fold)
        if words or (len(fold) == 1 and isinstance(fold[0], Details)):
            yield from fold
        else:
            yield Details(f"{anchor}-more-{number}", _summary(fold), tuple(fold))


def _summary(fold: Sequence[Block]) -> str:
    names = [name for block in fold for name in _names(block)]
    told = " · ".join(names)
    if len(told) <= LONG or len(names) < 2:
        return told or "More"
    return f"{names[0]}, and {plural(len(names) - 1, 'further figure')}"


def _names(block: Block) -> list[str]:
    match block:
        case Table():
            return [block.caption]
        case Figure():
            return [re.split(r"[:.;] |\.$", block.alt)[0]]
        case Columns():
            return [name for figure in block.figures for name in _names(figure)]
        case Gallery():
            return [block.title]
        case Details():
            return [block.summary]
    return []
