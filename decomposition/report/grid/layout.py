"""Where a cell stands in a figure: rows by what varies, columns by checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from decomposition.report.grid.cells import Grid, plain
from decomposition.report.wording import isolated

CHECKPOINT = "epoch"
_IMPLIED = ("cell", "label", "parameters", "depth", "width")
_WORDS = {
    "alpha": "α {}",
    "epoch": "epoch {}",
    "seed": "seed {}",
    "examples": "N {}",
    "label_noise": "noise {}",
    "dataset": "{}",
    "hidden": "{}",
    "activation": "{}",
    "randomness": "{}",
    "target": "{}",
}
_OWN = {"hidden": "architecture"}


@dataclass(frozen=True)
class Layout:
    """Rows × columns of cells; a place may be empty, and no place holds two cells."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[int, int], int]
    """(row, column) → cell."""

    def chunks(self, size: int) -> list[range]:
        """The rows in runs of at most ``size``, as even as can be."""
        count = -(-len(self.rows) // size)
        edges = [round(i * len(self.rows) / count) for i in range(count + 1)] if count else []
        return [range(a, b) for a, b in pairwise(edges)]


def layout(grid: Grid) -> Layout:
    """Checkpoints side by side where they vary beside something else; all else that varies below.

    Rows keep the study's order. Cells that nothing tells apart are told apart by their numbers.
    """
    known = {str(name): grid.coordinate(str(name)) for name in grid.data.coords}
    varying = [
        name
        for name, values in known.items()
        if name not in _IMPLIED and len({plain(v) for v in values.values()}) > 1
    ]
    across = CHECKPOINT in varying and len(varying) > 1 and grid.factor != CHECKPOINT
    below = [name for name in varying if not (across and name == CHECKPOINT)]
    row_of = {c: ", ".join(_word(n, known[n][c]) for n in below) for c in grid.cells}
    column_of = {c: known[CHECKPOINT][c] if across else 0 for c in grid.cells}
    places = [(row_of[c], column_of[c]) for c in grid.cells]
    for cell, place in zip(grid.cells, places, strict=True):
        if not row_of[cell] or places.count(place) > 1:
            only = grid.names[cell] if len(grid.cells) == 1 else f"{row_of[cell]} (cell {cell})"
            row_of[cell] = isolated(only, 40).strip()
    rows = tuple(dict.fromkeys(row_of.values()))
    columns = sorted(set(column_of.values()), key=lambda v: (isinstance(v, str), v))
    cells = {(rows.index(row_of[c]), columns.index(column_of[c])): c for c in grid.cells}
    titles = tuple(f"epoch {plain(v)}" if across else "" for v in columns)
    return Layout(rows, titles, cells)


def architecture(hidden: object) -> str:
    """``16-16-16-16`` as ``16×4``, a width and a depth; any other text as it is."""
    widths = str(hidden).split("-")
    return (
        f"{widths[0]}×{len(widths)}" if len(widths) > 2 and len(set(widths)) == 1 else str(hidden)
    )


def _word(name: str, value: object) -> str:
    text = architecture(value) if name == "hidden" else plain(value)
    if name == "examples" and value == 0:
        return "all examples"
    if not text:
        return f"its own {_OWN.get(name, name)}"
    return _WORDS.get(name, f"{name.replace('_', ' ')} {{}}").format(text)
