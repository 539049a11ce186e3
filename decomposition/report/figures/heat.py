"""Where the loss lives: layers, bands and steps as coloured cells, queries as distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from decomposition.names import BASELINES
from decomposition.report.figures.canvas import axes_or_new, head, report_style, say_missing
from decomposition.report.names import rung_label, step_label
from decomposition.report.palette import INK, MUTED, PAPER, step_style
from decomposition.report.result import Result, labels
from decomposition.report.wording import isolated, number, signed

AXES = {
    "layers": ("block", "layer", "LDS lost by layer and step"),
    "bands": ("band", "eigenvalues, by rank of magnitude", "LDS lost by spectral band and step"),
}
"""Child of ``/where`` → its dimension, its name for people, the figure's title."""


def draw_heat(
    ax: Axes,
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    bold: np.ndarray | None = None,
    dashed: np.ndarray | None = None,
    losses: bool = True,
) -> None:
    """Cells of ``values`` (rows, columns), first row on top; NaN has no cell.

    Args:
        ax: where.
        values: what gives a cell its colour.
        texts: what is written in each.
        rows, columns: their names.
        bold: cells with an outline.
        dashed: cells with a dashed outline, unless they have the other.
        losses: whether orange is a loss and purple a gain, of equal depth for equal size; else
            the colour runs from 0 to the largest value.
    """
    size = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    sns.heatmap(
        values,
        annot=np.array(texts, dtype=object).reshape(values.shape),
        fmt="",
        cmap="PuOr_r" if losses else "cividis",
        vmin=-(size or 1.0) if losses else 0.0,
        vmax=size or 1.0,
        cbar=False,
        linewidths=1.5,
        linecolor=PAPER,
        annot_kws={"fontsize": 8.5},
        xticklabels=False,
        yticklabels=False,
        ax=ax,
    )
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows)
    ax.tick_params(length=0)
    nowhere = np.zeros(values.shape, dtype=bool)
    bold = nowhere if bold is None else bold
    for outlined, line in ((bold, "-"), ((nowhere if dashed is None else dashed) & ~bold, "--")):
        for row, column in np.argwhere(outlined):
            look = {"edgecolor": INK, "linewidth": 1.6, "linestyle": line}
            ax.add_patch(Rectangle((column + 0.02, row + 0.03), 0.96, 0.94, fill=False, **look))


def plot_contributions(tree: xr.DataTree, what: str = "layers", ax: Axes | None = None) -> Axes:
    """A cell per part and step; each column adds up to the step's total, in the last row."""
    result = Result(tree)
    dim, name, title = AXES[what]
    contribution = result.array(f"/where/{what}", "contribution")
    total = result.array(f"/where/{what}", "total")
    with report_style():
        if contribution is None or total is None:
            return say_missing(axes_or_new(ax), "no such split of the loss in this result")
        steps, parts = labels(contribution, "step"), labels(contribution, dim)
        ax = axes_or_new(ax, height=1.2 + 0.32 * (len(parts) + 1))
        middle = contribution.sel(ci_bound="estimate").transpose(dim, "step").values
        values = np.vstack([middle, total.sel(ci_bound="estimate").values])
        texts = [[signed(value) for value in row] for row in values]
        layered = what == "layers"
        names = [*(result.layer(p, 20) if layered else isolated(p, 16) for p in parts), "total"]
        draw_heat(ax, values, texts, names, [step_label(s) for s in steps])
        ax.axhline(len(parts), color=INK, linewidth=1.0)
        ax.set_ylabel(name)
        head(ax, title)
    return ax


def layer_errors(result: Result, metric: str = "relative_frobenius") -> xr.DataArray | None:
    """(block, rung) error of each rung's diagonal blocks, against H, else against G; or None."""
    for name in ("value", "value_against_ggn"):
        found = {
            block: data[name].sel(metric=metric)
            for block, data in result.children("/spectral_error").items()
            if name in data and metric in labels(data[name], "metric")
        }
        known = {block: row for block, row in found.items() if np.isfinite(row.values).any()}
        if known:
            stacked = xr.concat(list(known.values()), dim="block", coords="minimal")
            rungs = [r for r in result.rungs if r in labels(stacked, "rung")]
            stacked = stacked.assign_coords(block=list(known))
            stacked = stacked.sel(rung=[r for r in rungs if r not in BASELINES])
            stacked.attrs["against"] = "H" if name == "value" else "G"
            return stacked.transpose("block", "rung")
    return None


def plot_layers(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """A cell per layer and rung, its relative Frobenius error written in it."""
    result = Result(tree, cell)
    errors = layer_errors(result)
    with report_style():
        ax = axes_or_new(ax)
        if errors is None:
            return say_missing(ax, "no spectral errors by layer in this result")
        texts = [[number(value, 2) for value in row] for row in errors.values]
        rungs = [rung_label(r, 12) for r in labels(errors, "rung")]
        blocks = [result.layer(b, 20) for b in labels(errors, "block")]
        draw_heat(ax, errors.values, texts, blocks, rungs, losses=False)
        ax.set_xticks(ax.get_xticks(), rungs, rotation=30, ha="right")
        ax.set_ylabel("layer")
        ax.set_xlabel(f"relative Frobenius error against {errors.attrs['against']}")
        head(ax, "Error by layer and rung")
    return ax


def plot_queries(tree: xr.DataTree, ax: Axes | None = None) -> Axes:
    """The share of queries that lose less than so much at each step, by step."""
    drop = Result(tree).array("/where/queries", "drop")
    with report_style():
        ax = axes_or_new(ax, height=4.1)
        if drop is None or not bool(drop.notnull().any()):
            return say_missing(ax, "no drops by query in this result")
        for step in labels(drop, "step"):
            style = step_style(step)
            here = drop.sel(step=step, ci_bound="estimate").values
            look = {"color": style.color, "linestyle": style.dash, "label": step_label(step)}
            sns.ecdfplot(x=here[np.isfinite(here)], ax=ax, **look)
        ax.axvline(0, color=MUTED, linewidth=1.0)
        ax.set(xlabel="LDS lost by one query (negative: gained)", ylabel="share of the queries")
        head(ax, "Loss by query at every step, tuned λ")
        ax.legend(loc="upper left", handlelength=3.4)
    return ax
