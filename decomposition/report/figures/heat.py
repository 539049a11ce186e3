"""A table as coloured cells with their numbers in them: losses one hue, gains another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from decomposition.report.figures.canvas import hint
from decomposition.report.palette import INK


@dataclass(frozen=True)
class Heat:
    """How cells are coloured."""

    colors: str
    """Name of a matplotlib colour map; a diverging one where ``low`` is −``high``."""
    low: float
    high: float

    def cell(self, value: float) -> tuple[str, str]:
        """Colour of a cell and of the text in it; the cells keep theirs on a dark page."""
        where = 0.5
        if np.isfinite(value) and self.high > self.low:
            where = float(np.clip((value - self.low) / (self.high - self.low), 0.0, 1.0))
        red, green, blue, _ = colormaps[self.colors](where)
        light = 0.3 * red + 0.6 * green + 0.1 * blue > 0.45
        return to_hex((red, green, blue)), "#000001" if light else "#fffffd"


def signed_heat(values: np.ndarray) -> Heat:
    """Orange for losses and purple for gains, of equal depth for equal size."""
    size = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    return Heat("PuOr_r", -size or -1.0, size or 1.0)


def draw_cells(
    ax: Axes,
    values: np.ndarray,
    heat: Heat,
    text: Callable[[int, int], str],
    hints: Callable[[int, int], str] | None = None,
    bold: np.ndarray | None = None,
    at: Sequence[float] | None = None,
) -> None:
    """Cells of ``values`` (rows, columns), first row on top; NaN has no cell.

    Args:
        ax: where.
        values: what gives a cell its colour.
        heat: how.
        text: (row, column) → what is written in the cell.
        hints: (row, column) → what a pointer brings up.
        bold: (rows, columns) cells in bold, with an outline.
        at: upper edge of each row; by default 0, 1, ….
    """
    tops = list(range(len(values))) if at is None else list(at)
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        color, ink = heat.cell(float(value))
        place = (column + 0.02, tops[row] + 0.04)
        cell = ax.add_patch(Rectangle(place, 0.96, 0.92, facecolor=color, edgecolor="none"))
        if hints is not None:
            hint(cell, hints(row, column))
        strong = bold is not None and bool(bold[row, column])
        if strong:
            cell.set(edgecolor=INK, linewidth=1.6)
        ax.text(
            column + 0.5,
            tops[row] + 0.5,
            text(row, column),
            ha="center",
            va="center",
            fontsize=8.5,
            color=ink,
            fontweight="bold" if strong else "normal",
        )
    ax.set_xlim(0, values.shape[1])
    ax.set_ylim(tops[-1] + 1, 0)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
