"""Where a cell stands in a figure: rows by what varies, columns by checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from decomposition.report.result import Result, plain
from decomposition.report.wording import isolated, middle_cut, without_folders
from decomposition.results.schema import CELL_COORDINATES

CHECKPOINT = "epoch"
_IMPLIED = ("label", "depth", "width")
_WORDS = {
    "alpha": "α {}",
    "epoch": "epoch {}",
    "momentum": "momentum {}",
    "seed": "seed {}",
    "examples": "N {}",
    "label_noise": "noise {}",
    "hidden": "{}",
    "activation": "{}",
    "randomness": "{}",
    "target": "{}",
    "inversion": "{}",
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


def layout(result: Result) -> Layout:
    """Checkpoints side by side where they vary beside something else; all else that varies below.

    Rows keep the study's order. Cells that nothing tells apart are told apart by their numbers.
    """
    known = {name: result.coordinate(name) for name in (*CELL_COORDINATES, "inversion")}
    varying = [
        name
        for name, values in known.items()
        if name not in _IMPLIED and len({plain(v) for v in values.values()}) > 1
    ]
    across = CHECKPOINT in varying and len(varying) > 1 and result.factor != CHECKPOINT
    below = [name for name in varying if not (across and name == CHECKPOINT)]
    row_of = {c: ", ".join(_word(n, known[n][c]) for n in below) for c in result.cells}
    column_of = {c: known[CHECKPOINT][c] if across else 0 for c in result.cells}
    places = [(row_of[c], column_of[c]) for c in result.cells]
    for cell, place in zip(result.cells, places, strict=True):
        if not row_of[cell] or places.count(place) > 1:
            named = result.names[cell] if _told_apart(result) else f"(cell {cell})"
            row_of[cell] = f"{row_of[cell]} (cell {cell})" if row_of[cell] else named
    rows = tuple(dict.fromkeys(row_of.values()))
    columns = sorted(set(column_of.values()), key=lambda v: (isinstance(v, str), v))
    cells = {(rows.index(row_of[c]), columns.index(column_of[c])): c for c in result.cells}
    titles = tuple(f"epoch {plain(v)}" if across else "" for v in columns)
    return Layout(rows, titles, cells)


def _told_apart(result: Result) -> bool:
    """Whether the cells' labels differ: those of several results do."""
    return len(set(result.names.values())) == len(result.cells)


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
    if name == "dataset":
        return isolated(middle_cut(without_folders(text), 40))
    return _WORDS.get(name, f"{name.replace('_', ' ')} {{}}").format(text)
