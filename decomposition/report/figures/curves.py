"""LDS and widths of intervals against what varies: damping, a factor of a study, masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.names import BASELINES, CHAIN
from decomposition.report.figures.canvas import (
    axes_or_new,
    head,
    label_lines,
    legend_below,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.figures.points import draw_lines
from decomposition.report.interval import Interval
from decomposition.report.layout import layout
from decomposition.report.names import (
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.palette import INK, MUTED, rung_styles, step_style
from decomposition.report.result import GRID, Result, interval, labels
from decomposition.results.schema import CELL

GRIDS = {
    "equal": ("/attribution", "damping", "damping λ (units of curvature)"),
    "relative": (
        "/attribution/relative",
        "setting",
        "c, with λ = c · trace / min(P, N·C) of each rung",
    ),
    "effective_dimension": (
        "/attribution/effective_dimension",
        "setting",
        "effective dimension Σ μ₊/(μ₊+λ) (directions)",
    ),
}
"""Protocol → where its LDS over a grid stands, the grid's dimension, and its axis."""
DAMPING = "multiplier"
"""The factor that varies within cells: one λ for all rungs, in multiples of tr G / min(P, N·C)."""

Curves = dict[str, list[tuple[float, Interval]]]
"""Rung → (value of the factor, LDS), a point per cell."""


def plot_lds_curves(
    tree: xr.DataTree, protocol: str = "equal", cell: int | None = None, ax: Axes | None = None
) -> Axes:
    """Mean LDS of each rung over the damping grid; a star marks each rung's best value."""
    result = Result(tree, cell)
    path, dim, axis_label = GRIDS[protocol]
    mean = result.known(path, "lds_mean")
    with report_style():
        ax = axes_or_new(ax, height=3.6)
        if mean is None:
            return say_missing(ax, "no LDS against damping in this result")
        rungs = [r for r in result.rungs if r in labels(mean, "rung") and r not in UNDRAWN]
        flat = {r for r in rungs if not np.ptp(mean.sel(rung=r, ci_bound="estimate").values) > 0}
        if len(rungs) > MOST:
            rungs = [r for r in rungs if r not in flat or r in (*CHAIN, *BASELINES)]
        grid = np.asarray(mean[dim].values, dtype=float)
        points = [
            (at, rung, interval(mean, **{"rung": rung, dim: at})) for rung in rungs for at in grid
        ]
        names = {rung: rung_label(rung) for rung in rungs}
        draw_lines(ax, {r: result.styles[r] for r in rungs}, points, names=names)
        for rung in (r for r in rungs if r not in flat):
            _star(ax, grid, mean.sel(rung=rung, ci_bound="estimate").values, result, rung)
        log_scale(ax, "x")
        ax.set_xlabel(axis_label)
        ax.set_ylabel("LDS (mean rank correlation)")
        head(ax, result.name or _best_title(result, mean, dim, protocol))
        _name_lines(ax, result, {r: mean.sel(rung=r, ci_bound="estimate").values for r in rungs})
    return ax


UNDRAWN = ("block_hessian", "ekfac_hessian", "random")
"""Rungs that no reader chooses between; the tables hold their numbers."""
MOST = 14
"""Lines beyond which those that know no λ are left out; the tables hold their numbers."""
DIRECT = 7
"""Most lines that are named where they end; more have a legend."""


def _best_title(result: Result, mean: xr.DataArray, dim: str, protocol: str) -> str:
    """The rung of the chain with the highest LDS of all."""
    chain = [r for r in CHAIN if r in labels(mean, "rung")]
    best = mean.sel(rung=chain, ci_bound="estimate").max(dim)
    under = protocol_label(protocol)
    if not bool(best.notnull().any()):
        return f"LDS against damping, {under}"
    return f"{rung_label(str(best.idxmax('rung').item()))} reaches the highest LDS, {under}"


def _name_lines(ax: Axes, result: Result, lines: Mapping[str, np.ndarray]) -> None:
    """Names at the ends of few lines, a legend for many."""
    known = {r: y[np.isfinite(y)] for r, y in lines.items() if np.isfinite(y).any()}
    if len(known) > DIRECT:
        legend_below(ax, columns=3)
        return
    ends = [
        (rung_label(r), result.styles[r].color, (float(y[0]), float(y[-1])))
        for r, y in known.items()
    ]
    label_lines(ax, ends)


def plot_levels_at_damping(tree: xr.DataTree, column: int = 0, ax: Axes | None = None) -> Axes:
    """LDS of the chain at one λ for all rungs: a thin line per cell, a thick one for their mean.

    Args:
        tree: a result of many cells.
        column: which checkpoint (see ``report.layout``).
        ax: where to draw.
    """
    result = Result(tree)
    level = result.known("/shares/at_damping", "level")
    with report_style():
        ax = axes_or_new(ax, 3.9, 3.2)
        if level is None or not result.many:
            return say_missing(ax, "no LDS over a grid of dampings in this result")
        shown = layout(result)
        cells = [cell for (_, at), cell in shown.cells.items() if at == column]
        grid = level["multiplier"].values.astype(float)
        means = {}
        for rung in (r for r in CHAIN if r in labels(level, "rung")):
            here = level.sel(cell=cells, rung=rung, ci_bound="estimate")
            lines = here.transpose("multiplier", "cell").values
            style, means[rung] = result.styles[rung], np.nanmean(lines, axis=1)
            thin = np.vstack([lines, np.full((1, len(cells)), np.nan)])
            x = np.tile([*grid, np.nan], len(cells))  # one path for all cells
            ax.plot(x, thin.T.reshape(-1), color=style.color, linewidth=0.5, alpha=0.35)
            ax.plot(grid, means[rung], color=style.color, linestyle=style.dash, linewidth=1.8)
        known = level.sel(ci_bound="estimate", rung=list(means)).values
        ax.set_ylim(min(0.0, float(np.nanmin(known))), float(np.nanmax(known)) + 0.02)
        ax.set_xlim(grid[0], grid[-1])
        log_scale(ax, "x")
        ax.set_xlabel("one λ / (tr G / min(P, N·C))")
        ax.set_ylabel("LDS")
        head(ax, shown.columns[column] or "LDS at one λ for all rungs")
        _name_lines(ax, result, means)
    return ax


def _star(ax: Axes, grid: np.ndarray, middle: np.ndarray, result: Result, rung: str) -> None:
    measured = np.flatnonzero(~np.isnan(middle))
    if not measured.size:
        return
    best = int(np.nanargmax(middle))
    color = result.styles[rung].color
    ax.plot(grid[best], middle[best], marker="*", markersize=12, color=color, zorder=5)
    if best in (measured[0], measured[-1]) and len(measured) > 1:
        ax.annotate(
            "edge",
            (grid[best], middle[best]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )


def factor_label(factor: str) -> str:
    """A factor's name on an axis."""
    return "λ / (tr G / min(P, N·C))" if factor == DAMPING else factor.replace("_", " ")


def factor_curves(result: Result, protocol: str) -> Curves:
    """The points of ``plot_factor``; empty in a result of several factors or of none."""
    if result.factor == DAMPING:
        level = result.known("/shares/at_damping", "level") if protocol == "equal" else None
        if level is None:
            return {}
        numbers = [float(m) for m in level["multiplier"].values]
        places = [{CELL: c} for c in result.cells] if CELL in level.dims else [{}]
        return {
            rung: [
                (m, interval(level, multiplier=m, rung=rung, **place))
                for m in numbers
                for place in places
            ]
            for rung in CHAIN
            if rung in labels(level, "rung")
        }
    level, x = result.known("/shares", "level"), result.coordinate(result.factor)
    numeric = {c: float(v) for c, v in x.items() if isinstance(v, int | float)}
    if result.factor == GRID or level is None or len(set(numeric.values())) < 2:
        return {}
    if protocol not in labels(level, "protocol"):
        return {}
    return {
        rung: [
            (numeric[c], value)
            for c in result.cells
            if (value := interval(level, cell=c, protocol=protocol, rung=rung)).known
        ]
        for rung in result.drawn
        if rung in labels(level, "rung")
        and np.isfinite(level.sel(protocol=protocol, rung=rung)).any()
    }


def means_of(curve: Iterable[tuple[float, Interval]]) -> list[tuple[float, float]]:
    """(value of the factor, mean of the estimates there), ascending."""
    points = list(curve)
    places = sorted({x for x, _ in points})
    return [(at, float(np.mean([v.estimate for x, v in points if x == at]))) for at in places]


def plot_factor(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """A line per rung through the means of the cells, a mark with its interval per cell."""
    result = Result(tree)
    curves = factor_curves(result, protocol)
    with report_style():
        ax = axes_or_new(ax, height=4.1)
        if not curves:
            return say_missing(ax, "no factor varies in this result")
        styles = {rung: result.styles[rung] for rung in curves}
        points = [
            (x, rung, Interval(mean, mean, mean))
            for rung, curve in curves.items()
            for x, mean in means_of(curve)
        ]
        draw_lines(ax, styles, points, names={rung: rung_label(rung) for rung in curves})
        for rung, curve in curves.items():
            x, low, high = (
                [*part] for part in zip(*((p, v.lower, v.upper) for p, v in curve), strict=True)
            )
            ax.vlines(x, low, high, color=styles[rung].color, linewidth=0.9, alpha=0.6)
        if min(x for x, *_ in points) > 0:
            log_scale(ax, "x")
        ax.axhline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(factor_label(result.factor))
        ax.set_ylabel("LDS")
        head(ax, protocol_label(protocol))
        legend_below(ax, columns=3)
    return ax


def most_negative(result: Result, rung: str) -> float | None:
    """|λ_min| of a rung with negative eigenvalues; None where it has none or is not known."""
    values = result.array("/spectrum", "eigenvalues")
    if values is None or rung not in labels(values, "rung"):
        return None
    here = values.sel(rung=rung).values
    known = here[np.isfinite(here)]
    return float(-known.min()) if known.size and known.min() < 0 else None


def plot_policies(tree: xr.DataTree, rung: str = "hessian", ax: Axes | None = None) -> Axes:
    """A line per policy; left of |λ_min| ``signed`` inverts an indefinite matrix."""
    result = Result(tree)
    lds = result.known("/policies", "lds_by_damping")
    with report_style():
        ax = axes_or_new(ax, height=4.1)
        if lds is None or rung not in labels(lds, "rung"):
            return say_missing(ax, "no policies compared in this result")
        policies, grid = labels(lds, "policy"), np.asarray(lds["damping"].values, dtype=float)
        looks = rung_styles(f"policy {i}" for i in range(len(policies))).values()
        here = lds.sel(rung=rung).transpose("policy", "damping").values
        points = [
            (at, policy, Interval(value, value, value))
            for policy, line in zip(policies, here.tolist(), strict=True)
            for at, value in zip(grid, line, strict=True)
        ]
        draw_lines(ax, dict(zip(policies, looks, strict=True)), points)
        edge = most_negative(result, rung)
        if edge is not None and grid.min() < edge < grid.max():
            ax.axvline(edge, color=MUTED, linewidth=1.0, label="|λ_min|: signed indefinite left")
        log_scale(ax, "x")
        ax.set_xlabel("damping λ (units of curvature)")
        ax.set_ylabel("LDS (mean rank correlation)")
        head(ax, f"Negative eigenvalues of the {rung_label(rung)}, by policy")
        legend_below(ax, columns=2)
    return ax


def masks_at_hand(result: Result) -> int | None:
    """How many subsets were retrained; None where the result holds no bank."""
    masks = result.array("/bank", "masks")
    return None if masks is None else masks.sizes["mask"]


def plot_resolution(
    tree: xr.DataTree, protocol: str = "equal", cell: int | None = None, ax: Axes | None = None
) -> Axes:
    """A line per step, dotted beyond the masks at hand; rings are the result's own intervals."""
    result = Result(tree, cell)
    width = result.known("/shares/resolution", "width")
    with report_style():
        ax = axes_or_new(ax, height=3.2)
        if width is None or protocol not in labels(width, "protocol"):
            return say_missing(ax, "no curve of interval widths in this result")
        amount, at_hand = width["masks"].values.astype(float), masks_at_hand(result)
        measured = amount <= (at_hand if at_hand is not None else np.inf)
        drop, ends = result.array("/shares", "drop"), []
        for step in labels(width, "chain_step"):
            style = step_style(step)
            line = width.sel(protocol=protocol, chain_step=step).values
            look = {"color": style.color, "marker": style.marker, "markersize": 3.5}
            ax.plot(amount[measured], line[measured], linestyle="-", **look)
            ends.append((step_label(step), style.color, (float(line[0]), float(line[-1]))))
            beyond = np.flatnonzero(~measured)
            if beyond.size:
                joint = np.append(max(beyond[0] - 1, 0), beyond)
                ax.plot(amount[joint], line[joint], linestyle=":", linewidth=1.2, color=style.color)
            if drop is not None and at_hand is not None:
                own = interval(drop, metric="lds", protocol=protocol, step=step)
                ax.plot(at_hand, own.upper - own.lower, "o", ms=8, mfc="none", color=style.color)
        if at_hand is not None:
            ax.axvline(at_hand, color=MUTED, linewidth=1.0)
        log_scale(ax, "x")
        ax.set_ylim(bottom=0)
        ax.set_xlabel("masks (retrained subsets); dotted: extrapolated")
        ax.set_ylabel("width of the interval of the drop (LDS)")
        head(ax, result.name or f"What more masks buy, {protocol_label(protocol)}")
        label_lines(ax, ends)
    return ax
