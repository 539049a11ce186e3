"""Spectra of the rungs: by rank, as densities, counts and effective dimensions.

``data`` of a function is a table of a spectral inspection (``decompose spectrum``), with the whole
matrix and every block as its scopes, or a group of a result, which has no scopes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_below,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.names import rung_label
from decomposition.report.palette import MUTED, PAPER, RungStyle, rung_styles
from decomposition.report.result import Result, labels
from decomposition.report.wording import MINUS, isolated, superscript

POINTS = 160
"""Points drawn of each curve, spread evenly over the logarithm of the rank."""
FLOOR = 1e-12
"""Relative magnitude below which an eigenvalue is rounding error and is not drawn."""
LEAST = 0.5
"""Eigenvalues per decade, and counts, at the foot of a logarithmic axis."""
WHOLE = "whole"

Curve = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]
"""x, y, and the bounds of y where there are any."""


def scope_label(scope: str) -> str:
    """``whole`` or ``block 0``, as a title says it."""
    return "whole matrix" if scope == WHOLE else f"block {isolated(scope, 20)}"


def _in_scope(data: xr.Dataset, scope: str) -> xr.Dataset:
    return data.sel(scope=scope) if "scope" in data.dims else data


def _rungs(data: xr.Dataset | xr.DataArray) -> list[str]:
    return [str(rung) for rung in data["rung"].values]


def draw_rungs(
    ax: Axes,
    rungs: Iterable[str],
    styles: dict[str, RungStyle],
    curve: Callable[[str], Curve | None],
    named: Callable[[str], str] = rung_label,
    marked: bool = False,
) -> None:
    """A line per rung, in a band where it is estimated; nothing of a rung that is not known.

    Args:
        ax: where.
        rungs: in order.
        styles: rung → look.
        curve: rung → what is drawn.
        named: rung → its name in the legend.
        marked: whether points have markers.
    """
    for rung in rungs:
        found = curve(rung)
        if found is None or not np.isfinite(found[1]).any():
            continue
        x, y, low, high = found
        style = styles[rung]
        look = {"marker": style.marker, "markersize": 3.4, "linewidth": 0.9} if marked else {}
        ax.plot(x, y, color=style.color, linestyle=style.dash, label=named(rung), **look)
        if low is not None and high is not None and (low < high).any():
            ax.fill_between(x, low, high, color=style.color, alpha=0.22, linewidth=0)


def _every_rung(ax: Axes, data: xr.Dataset, curve: Callable[[str], Curve | None]) -> Axes:
    """The rungs of a table with their legend, each in its own look."""
    rungs = _rungs(data)
    draw_rungs(ax, rungs, rung_styles(rungs), curve)
    legend_below(ax, columns=3)
    return ax


def _within(y: np.ndarray, error: np.ndarray, least: float) -> Curve:
    """A curve with a band of ± 2 errors, cut at ``least`` for a logarithmic axis."""
    error = np.nan_to_num(error)
    return y, y, np.maximum(y - 2 * error, least), np.maximum(y + 2 * error, least)


def _picked(count: int) -> np.ndarray:
    """Ranks from 1 to ``count``, evenly over their logarithm."""
    return np.unique(np.geomspace(1, max(count, 1), POINTS).round().astype(int))


def ranked(values: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank (from 1) and magnitude of the eigenvalues of one sign, largest magnitude first.

    Args:
        values: (P,), NaN where there is none.
        sign: 1 or −1.

    Returns:
        Two arrays of the same length, thinned to at most ``POINTS`` entries.
    """
    known = values[np.isfinite(values)]
    floor = FLOOR * np.abs(known).max(initial=0.0)
    magnitude = np.sort((sign * known)[sign * known > floor])[::-1]
    if magnitude.size == 0:
        return np.empty(0), np.empty(0)
    picked = _picked(magnitude.size)
    return picked, magnitude[picked - 1]


def plot_spectra(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """|eigenvalue| against rank for every rung; thin lines are the negative eigenvalues."""
    result = Result(tree, cell)
    values = result.array("/spectrum", "eigenvalues")
    with report_style():
        ax = axes_or_new(ax, height=3.8)
        if values is None:
            return say_missing(ax, "no spectra in this result")
        present = labels(values, "rung")
        for rung in (r for r in result.rungs if r in present):
            style, here = result.styles[rung], values.sel(rung=rung).values
            for sign, more in ((1, {}), (-1, {"linestyle": (0, (1, 2)), "linewidth": 1.1})):
                rank, size = ranked(here, sign)
                if rank.size:
                    label = rung_label(rung) if sign > 0 else None
                    look: Any = {"color": style.color, "linestyle": style.dash, "label": label}
                    ax.plot(rank, size, **(look | more))
        log_scale(ax, "x", "y")
        ax.set_xlabel("rank (1 = largest magnitude of its sign)")
        ax.set_ylabel("|eigenvalue| (units of curvature)")
        ax.set_title(result.name or "Eigenvalues of every rung (thin: negative)")
        legend_below(ax, columns=3)
    return ax


def plot_rank_curve(data: xr.Dataset, scope: str = WHOLE, ax: Axes | None = None) -> Axes:
    """|eigenvalue| against rank; hollow marks on a curve are negative eigenvalues.

    Args:
        data: magnitude and sign (scope, rung, rank), from ``spectrum.tables.by_rank``.
        scope: whole, or a block.
        ax: where to draw.
    """
    here = _in_scope(data, scope)
    styles = rung_styles(_rungs(here))
    with report_style():
        ax = axes_or_new(ax, height=4.3)
        for rung in _rungs(here):
            size, sign = here["magnitude"].sel(rung=rung).values, here["sign"].sel(rung=rung).values
            last = int((size > 100 * FLOOR * np.nanmax(size, initial=0.0)).sum())
            if last:
                ranks = _picked(last)
                _signed_line(ax, ranks, size[ranks - 1], sign[ranks - 1] < 0, styles[rung], rung)
        if bool((here["sign"] < 0).any()):
            hollow: Any = {"marker": "o", "linestyle": "none", "markerfacecolor": PAPER}
            ax.plot([], [], markeredgecolor=MUTED, label="negative", **hollow)
        log_scale(ax, "x", "y")
        ax.set_xlabel("rank (1 = largest magnitude)")
        ax.set_ylabel("|eigenvalue| (units of curvature)")
        ax.set_title(f"Eigenvalues by rank, {scope_label(scope)}")
        legend_below(ax, columns=3)
    return ax


def _signed_line(
    ax: Axes,
    rank: np.ndarray,
    size: np.ndarray,
    negative: np.ndarray,
    style: RungStyle,
    rung: str,
    marks: float = 4.2,
) -> None:
    """A rung's magnitudes; its negative eigenvalues as hollow marks on the line."""
    look: Any = {"color": style.color, "linestyle": style.dash, "linewidth": 1.3}
    ax.plot(rank, size, label=rung_label(rung), **look)
    ax.plot(
        rank[negative],
        size[negative],
        linestyle="none",
        marker=style.marker,
        markersize=marks,
        markerfacecolor=PAPER,
        markeredgecolor=style.color,
        markeredgewidth=0.8,
    )


def plot_cumulative(data: xr.Dataset, scope: str = WHOLE, ax: Axes | None = None) -> Axes:
    """Share of Σ|eigenvalue| that the r eigenvalues of largest magnitude hold."""
    here = _in_scope(data, scope)

    def curve(rung: str) -> Curve | None:
        share = here["cumulative"].sel(rung=rung).values
        known = int(np.isfinite(share).sum())
        ranks = _picked(known)
        return (ranks, share[ranks - 1], None, None) if known else None

    with report_style():
        ax = _every_rung(axes_or_new(ax), here, curve)
        log_scale(ax, "x")
        ax.set(ylim=(0.0, 1.02), xlabel="number of leading eigenvalues")
        ax.set(ylabel="share of Σ|eigenvalue|", title=f"Cumulative curvature, {scope_label(scope)}")
    return ax


def plot_density(data: xr.Dataset, scope: str = WHOLE, ax: Axes | None = None) -> Axes:
    """Eigenvalues per decade; the band is ± 2 standard errors where the density is estimated.

    Args:
        data: density, standard_error (scope, rung, position), from ``spectrum.density.density``,
            or the group ``/spectral_density`` of a result.
        scope: whole, or a block.
        ax: where to draw.
    """
    here = _in_scope(data, scope)

    def curve(rung: str) -> Curve:
        y = here["density"].sel(rung=rung).values
        _, y, low, high = _within(y, here["standard_error"].sel(rung=rung).values, LEAST / 10)
        return here["position"].values, np.where(y >= LEAST / 10, y, np.nan), low, high

    with report_style():
        ax = _every_rung(axes_or_new(ax, height=4.0), here, curve)
        _symmetric_axis(ax, data)
        ax.set(xlabel="eigenvalue (symmetric logarithmic)", ylabel="eigenvalues per decade")
        ax.set_title(f"Spectral density, {scope_label(scope)}")
    return ax


def plot_counts(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Eigenvalues further from zero than μ, on either side; the band lies between their bounds.

    Args:
        data: group ``/spectral_density`` of a result.
        ax: where to draw.
    """

    def curve(rung: str) -> Curve:
        y, low, high = further_out(data.sel(rung=rung))
        low, high = (np.maximum(bound, LEAST / 10) for bound in (low, high))
        return data["position"].values, np.where(y >= LEAST / 10, y, np.nan), low, high

    with report_style():
        ax = _every_rung(axes_or_new(ax, height=4.0), data, curve)
        _symmetric_axis(ax, data)
        ax.set(xlabel="eigenvalue μ (symmetric logarithmic)", ylabel="eigenvalues further from 0")
        ax.set_title("Number of eigenvalues beyond μ")
    return ax


def further_out(one: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts below μ < 0 and above μ > 0 of one rung, with their bounds."""
    count, low, high = (one[name].values for name in ("count", "count_lower", "count_upper"))
    size, left = count[-1], one["eigenvalue"].values < 0
    return (
        np.where(left, count, size - count),
        np.where(left, low, size - high),
        np.where(left, high, size - low),
    )


def _symmetric_axis(ax: Axes, data: xr.Dataset) -> None:
    ax.axvline(0.0, color=MUTED, linewidth=0.8)
    log_scale(ax, "y")
    ax.set_ylim(bottom=LEAST)
    ax.set_xticks(*ticks(data["position"].values, float(data.attrs["threshold"])))


def ticks(position: np.ndarray, threshold: float) -> tuple[list[float], list[str]]:
    """Powers of ten of both signs, spaced so that labels do not touch, and 0."""
    reach = int(np.floor(max(position.max(), -position.min())))
    step = max(1, round((position.max() - position.min()) / 5))
    exponent = np.log10(threshold)
    places, names = [0.0], ["0"]
    for decade in range(int(np.ceil(exponent)), int(np.ceil(exponent)) + reach + 1):
        place = np.arcsinh(10.0 ** (decade - exponent) / 2.0) / np.log(10.0)
        if (int(np.ceil(exponent + reach)) - decade) % step or place < 0.6 * step:
            continue
        for sign, mark in ((1.0, ""), (-1.0, MINUS)):
            if position.min() <= sign * place <= position.max():
                places.append(sign * place)
                names.append(f"{mark}10{superscript(decade)}")
    return places, names


def plot_effective_dimension(data: xr.Dataset, scope: str = WHOLE, ax: Axes | None = None) -> Axes:
    """Σ |μ| / (|μ| + λ) against λ: how many directions a damping leaves alone."""
    here = _in_scope(data, scope)

    def curve(rung: str) -> Curve:
        y = here["dimension"].sel(rung=rung).values
        error = here["standard_error"].sel(rung=rung).values
        return here["damping"].values, *_within(y, error, 1e-3)[1:]

    with report_style():
        ax = _every_rung(axes_or_new(ax), here, curve)
        log_scale(ax, "x", "y")
        ax.set_ylim(bottom=0.5)
        ax.set(xlabel="damping λ", ylabel="effective dimension")
        ax.set_title(f"Effective dimension, {scope_label(scope)}")
    return ax


def plot_outliers(data: xr.Dataset, scope: str = WHOLE, ax: Axes | None = None) -> Axes:
    """The largest positive eigenvalues; the vertical line is the number of classes.

    Args:
        data: from ``spectrum.summary.outliers``; the legend gives each rung's count, the rank
            after which the widest gap lies.
        scope: whole, or a block.
        ax: where to draw.
    """
    here, classes = _in_scope(data, scope), int(data.attrs["classes"])

    def named(rung: str) -> str:
        count = float(here["count"].sel(rung=rung))
        return rung_label(rung) + (f": {count:.0f}" if np.isfinite(count) else "")

    with report_style():
        ax = axes_or_new(ax)
        draw_rungs(
            ax,
            _rungs(here),
            rung_styles(_rungs(here)),
            lambda r: (here["rank"].values, here["leading"].sel(rung=r).values, None, None),
            named,
            marked=True,
        )
        ax.axvline(classes + 0.5, color=MUTED, linewidth=1.0)
        ax.annotate(
            f"{classes} classes",
            (classes + 0.5, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color=MUTED,
        )
        log_scale(ax, "y")
        ax.set_xlabel("rank")
        ax.set_ylabel("eigenvalue")
        ax.set_title(f"Outliers (rank of the widest gap), {scope_label(scope)}")
        legend_below(ax, columns=3)
    return ax


def plot_training_spectra(data: xr.Dataset, scope: str = WHOLE, ax: Axes | None = None) -> Axes:
    """A panel per checkpoint: |eigenvalue| against rank; hollow marks are negative.

    The panels share both scales, and each repeats the first rung's last spectrum in grey.

    Args:
        data: from ``spectrum.training.training_spectra``.
        scope: whole, or a block.
        ax: axes whose place the panels take; they become its children.
    """
    values = data["eigenvalues"].sel(scope=scope)
    rungs, epochs = _rungs(values), values["epoch"].values
    styles = rung_styles(rungs)
    columns = min(len(epochs), 4)
    rows = -(-len(epochs) // columns)
    with report_style():
        ax = axes_or_new(ax, width=2.3 * columns + 0.8, height=2.1 * rows + 0.9)
        ax.set_axis_off()
        top = float(np.nanmax(np.abs(values.values)))
        last = _by_size(values.isel(epoch=-1).sel(rung=rungs[0]).values)
        for i, epoch in enumerate(epochs):
            row, column = divmod(i, columns)
            width, height = 1.0 / columns, 1.0 / rows
            corner = (column * width + 0.02, 1.0 - (row + 0.9) * height)
            panel = ax.inset_axes((*corner, 0.88 * width, 0.74 * height))
            panel.plot(last[0], last[1], color=MUTED, linewidth=0.8)
            for rung in rungs:
                curve = _by_size(values.sel(epoch=epoch, rung=rung).values)
                _signed_line(panel, *curve, styles[rung], rung, marks=2.6)
            log_scale(panel, "x", "y")
            panel.set_xlim(0.8, 1.25 * values.sizes["index"])
            panel.set_ylim(1e-7 * top, 2.0 * top)
            loss = f", loss {float(data['train_loss'][i]):.2g}" if "train_loss" in data else ""
            panel.set_title(f"epoch {int(epoch)}{loss}", fontsize=8.5)
            panel.tick_params(
                labelsize=7.5, labelleft=not column, labelbottom=i + columns >= len(epochs)
            )
        for rung in rungs:
            style = styles[rung]
            ax.plot([], [], color=style.color, linestyle=style.dash, label=rung_label(rung))
        ax.plot([], [], color=MUTED, linewidth=0.8, label=f"{rung_label(rungs[0])}, last")
        below: Any = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.03), "borderaxespad": 0.0}
        ax.legend(ncols=4, handlelength=3.4, **below)
        ax.set_title("|eigenvalue| by rank along training (hollow: negative)", pad=8)
    return ax


def _by_size(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank, magnitude, and whether the eigenvalue is negative; largest magnitude first."""
    known = values[np.isfinite(values)]
    known = known[np.argsort(-np.abs(known), kind="stable")]
    size = np.abs(known)
    ranks = _picked(int((size > FLOOR / 10 * size.max(initial=0.0)).sum()))
    return ranks, size[ranks - 1], known[ranks - 1] < 0
