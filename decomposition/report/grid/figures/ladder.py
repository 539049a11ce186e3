"""From the controlled protocol to the paper's, one change at a time, as floating bars."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    beside,
    hint,
    report_style,
    say_missing,
)
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.palette import MUTED, rung_label, rung_styles
from decomposition.report.study import Interval, interval, labels
from decomposition.report.wording import fixed, signed, span


def ladders(grid: Grid) -> dict[str, list[str]]:
    """Rung → the steps of its ladder; empty where the study holds no ``/ladder``."""
    data = grid.group("/ladder")
    if data is None or "ladder_step" not in data.coords:
        return {}
    found: dict[str, list[str]] = {}
    for step in labels(data["ladder_step"], "ladder_step"):
        of = data["ladder_of"].sel(ladder_step=step).item() if "ladder_of" in data.coords else ""
        found.setdefault(str(of), []).append(step)
    return found


def ladder_step_label(step: str) -> str:
    """``kfac: one_sample`` as ``one sample``."""
    return step.rpartition(": ")[2].replace("_", " ")


def plot_ladder(
    tree: xr.DataTree, protocol: str = "equal", cell: int = 0, ax: Axes | None = None
) -> Axes:
    """A group per rung: its LDS under the controlled protocol, then what each change takes.

    Args:
        tree: a study.
        protocol: damping protocol.
        cell: number of the cell.
        ax: where to draw.
    """
    grid = Grid(tree)
    groups, drop = ladders(grid), grid.array("/ladder", "drop")
    lines = sum(1 + len(steps) for steps in groups.values())
    with report_style():
        ax = axes_or_new(ax, 4.8, 0.9 + 0.32 * lines)
        if drop is None or protocol not in labels(drop, "protocol") or not groups:
            return say_missing(ax, "no ladder between protocols in this study")
        names: list[str] = []
        reach = [0.0]
        for rung, steps in groups.items():
            at = _start(grid, cell, protocol, rung)
            color = rung_styles([rung])[rung].color
            _dot(ax, len(names), at, color, f"{rung_label(rung)}: {span(at)}", fixed(at.estimate))
            names.append(rung_label(rung))
            reach += [at.lower, at.upper]
            end = at.estimate
            for step in steps:
                change = interval(drop, cell=cell, protocol=protocol, ladder_step=step)
                if change.known:
                    _bar(ax, len(names), end, change, color, ladder_step_label(step))
                    reach += [end, end - change.lower, end - change.upper]
                    end -= change.estimate
                names.append(f"+ {ladder_step_label(step)}")
        known = [value for value in reach if np.isfinite(value)]
        low, high = min(known), max(known)
        ax.set_xlim(low - 0.03 * (high - low), high + 0.28 * (high - low))
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(f"LDS, {protocol_label(protocol)}")
        ax.set_title(grid.names.get(cell, f"cell {cell}"))
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    return ax


def _start(grid: Grid, cell: int, protocol: str, rung: str) -> Interval:
    """LDS at the foot of a ladder; zero where the study holds none, so that the drops show."""
    level = grid.of_cells("level")
    if level is None or rung not in labels(level, "rung"):
        return Interval(0.0, 0.0, 0.0)
    found = interval(level, cell=cell, protocol=protocol, rung=rung)
    return found if found.known else Interval(0.0, 0.0, 0.0)


def _dot(ax: Axes, y: int, at: Interval, color: str, told: str, text: str) -> None:
    ax.plot([at.lower, at.upper], [y, y], color=color, linewidth=1.3)
    (dot,) = ax.plot(at.estimate, y, "o", color=color, markersize=6)
    hint(dot, told)
    beside(ax, max(at.upper, at.estimate), y, text)


def _bar(ax: Axes, y: int, start: float, change: Interval, color: str, name: str) -> None:
    end = start - change.estimate
    (bar,) = ax.barh(y, end - start, left=start, height=0.6, color=color, alpha=0.35)
    hint(bar, f"{name}: {span(Interval(-change.upper, -change.estimate, -change.lower))}")
    ax.plot([start - change.upper, start - change.lower], [y, y], color=color, linewidth=1.3)
    ax.plot(end, y, "d", color=color, markersize=5)
    ax.plot([start, start], [y - 0.7, y + 0.3], color=MUTED, linewidth=0.8)
    beside(ax, max(start, start - change.lower), y, signed(-change.estimate))
