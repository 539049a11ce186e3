"""Two rungs against each other: eigenvalues, eigenvectors, and where gradients and errors lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_below,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.figures.spectra import draw_rungs
from decomposition.report.names import STEP_LABELS, rung_label
from decomposition.report.palette import INK, MUTED, PAPER, rung_styles
from decomposition.report.result import Result
from decomposition.report.wording import MINUS, isolated, superscript

POINTS = 200
"""Points drawn of each curve or block, spread evenly."""

_MARKERS = "osD^vPX*<>"


def _block_looks(count: int) -> list[tuple[str, str]]:
    """A colour and a marker for each block."""
    colors = [style.color for style in rung_styles(f"block {i}" for i in range(5)).values()]
    return [(colors[i % len(colors)], _MARKERS[i % len(_MARKERS)]) for i in range(count)]


def pairs(block: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Exact (EK-FAC) and product (K-FAC) eigenvalues of a block, positive pairs, thinned."""
    exact, product = (block[f"{r}_eigenvalues"].values for r in ("ekfac", "kfac"))
    finite = np.isfinite(exact) & np.isfinite(product)
    floor = 1e-14 * np.maximum(exact, product).max(initial=0, where=finite)
    keep = finite & (exact > floor) & (product > floor)
    order = np.flatnonzero(keep)[np.argsort(exact[keep])]
    places = np.linspace(0, len(order) - 1, min(POINTS, len(order)))
    picked = order[np.unique(places.round().astype(int))]
    return exact[picked], product[picked]


def plot_mismatch(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """A marker per eigenvector; on the diagonal K-FAC is right, above it overestimates."""
    result = Result(tree, cell)
    blocks = {
        name: data
        for name, data in result.children("/spectrum").items()
        if {"ekfac_eigenvalues", "kfac_eigenvalues"} <= set(data.data_vars)
    }
    with report_style():
        ax = axes_or_new(ax, height=4.3)
        if not blocks:
            return say_missing(ax, "no paired eigenvalues in this result")
        ends: list[float] = []
        for look, (name, data) in zip(_block_looks(len(blocks)), blocks.items(), strict=True):
            exact, product = pairs(data)
            if not exact.size:
                continue
            ends += [exact.min(), exact.max()]
            ax.plot(
                exact,
                product,
                linestyle="none",
                color=look[0],
                marker=look[1],
                markersize=2.6,
                alpha=0.7,
                label=f"layer {result.layer(name, 20)}",
            )
        if ends:
            limits = [min(ends), max(ends)]
            ax.plot(limits, limits, color=MUTED, linewidth=1.0, label="equal")
        log_scale(ax, "x", "y")
        ax.set_xlabel("EK-FAC eigenvalue (exact curvature along it)")
        ax.set_ylabel("K-FAC eigenvalue (product)")
        ax.set_title(result.name or "Product against exact eigenvalues")
        legend_below(ax, columns=3)
    return ax


def plot_mismatch_by_decade(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Median and quartiles of product / exact by decade of the exact value, for every block.

    Args:
        data: from ``spectrum.mismatch.mismatch_by_decade``.
        ax: where to draw. Above 1 K-FAC overestimates: it trusts the direction too little.
    """
    blocks = [str(s) for s in data["scope"].values if s != "whole"]
    decades = data["decade"].values.astype(float)
    with report_style():
        ax = axes_or_new(ax)
        for i, (look, block) in enumerate(zip(_block_looks(len(blocks)), blocks, strict=True)):
            here = data.sel(scope=block)
            middle = here["median"].values
            known = np.isfinite(middle)
            below, above = middle - here["lower"].values, here["upper"].values - middle
            shift = 0.7 * ((i + 0.5) / len(blocks) - 0.5)
            ax.errorbar(
                decades[known] + shift,
                middle[known],
                yerr=np.stack([below[known], above[known]]),
                linestyle="none",
                color=look[0],
                marker=look[1],
                capsize=2,
                linewidth=1.1,
                label=f"block {isolated(block, 18)}",
            )
        ax.axhline(1.0, color=MUTED, linewidth=1.0)
        log_scale(ax, "y")
        ax.set_yticks(*_factors(ax.get_ylim()))
        ax.set_xticks(decades, [f"10{superscript(int(d))}" for d in decades])
        ax.tick_params(axis="x", labelsize=8)
        ax.set_xlabel("exact curvature along the eigenvector (from, by decade)")
        ax.set_ylabel("product / exact, median and quartiles")
        ax.set_title("Over- and underestimation by decade")
        legend_below(ax, columns=3)
    return ax


def plot_mismatch_parts(data: xr.Dataset, match: str = "trace", ax: Axes | None = None) -> Axes:
    """Squared eigenvalue error ‖E − K‖² / ‖E‖², split into one scale factor and shape.

    Args:
        data: from ``spectrum.mismatch.mismatch_parts``.
        match: trace, or least_squares.
        ax: where to draw.
    """
    here = data.sel(match=match)
    scopes = [str(scope) for scope in here["scope"].values]
    place = np.arange(len(scopes))
    shape, scale = here["shape"].values, here["scale"].values
    with report_style():
        ax = axes_or_new(ax, height=0.55 * len(scopes) + 1.9)
        ax.barh(place, shape, height=0.6, color="#d04a02", label="shape: no factor mends it")
        ax.barh(
            place,
            scale,
            height=0.6,
            left=shape,
            color="#c07800",
            hatch="////",
            edgecolor=PAPER,
            linewidth=0,
            label="scale: one factor mends it",
        )
        for y, (total, factor) in enumerate(zip(shape + scale, here["factor"].values, strict=True)):
            text = "" if np.isnan(factor) else f"× {factor:.2f}"
            ax.annotate(
                text,
                (max(total, 0.0), y),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=INK,
            )
        ax.set_yticks(place, [s if s == "whole" else f"block {isolated(s, 16)}" for s in scopes])
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("squared eigenvalue error, relative to EK-FAC")
        how = "trace-matched" if match == "trace" else "least squares"
        ax.set_title(f"Scale against shape ({how})")
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.3), ncols=2, borderaxespad=0.0)
    return ax


def _factors(limits: tuple[float, float]) -> tuple[list[float], list[str]]:
    series = [m * 10.0**d for d in range(-6, 7) for m in (1, 2, 5)]
    inside = [value for value in series if limits[0] <= value <= limits[1]]
    if len(inside) > 9:
        inside = [v for v in inside if np.isclose(np.log10(v), np.round(np.log10(v)))]
    return inside, [f"{value:g}" for value in inside]


def plot_subspace_overlap(data: xr.DataArray, reference: str, ax: Axes | None = None) -> Axes:
    """Overlap of the k leading eigenvectors with the reference's, for every k.

    Args:
        data: overlap(rung, k).
        reference: name of the rung they are compared with.
        ax: where to draw. The grey line is what random subspaces share.
    """
    rungs = [str(rung) for rung in data["rung"].values if rung != reference]
    k = data["k"].values
    picked = np.unique(np.geomspace(1, len(k), POINTS).round().astype(int)) - 1
    with report_style():
        ax = axes_or_new(ax)
        draw_rungs(
            ax,
            rungs,
            rung_styles(rungs),
            lambda rung: (k[picked], data.sel(rung=rung).values[picked], None, None),
        )
        ax.plot(k[picked], k[picked] / k[-1], color=MUTED, linewidth=0.9, label="by chance")
        log_scale(ax, "x")
        ax.set_ylim(0.0, 1.02)
        ax.set_xlabel("k leading eigenvectors")
        ax.set_ylabel("subspace overlap")
        ax.set_title(f"Leading eigenvectors shared with {rung_label(reference)}")
        legend_below(ax, columns=3)
    return ax


def plot_cosines(data: xr.DataArray, rung: str, reference: str, ax: Axes | None = None) -> Axes:
    """Squared cosines between the leading eigenvectors of two rungs; dark is 1.

    Args:
        data: squared_cosine(vector, reference_vector).
        rung: name of the rows.
        reference: name of the columns.
        ax: where to draw.
    """
    count = data.shape[0]
    with report_style():
        ax = axes_or_new(ax, width=4.4, height=4.0)
        sns.heatmap(
            data.values,
            cmap="cividis_r",
            vmin=0.0,
            vmax=1.0,
            square=True,
            cbar_kws={"shrink": 0.85, "label": "squared cosine"},
            xticklabels=False,
            yticklabels=False,
            ax=ax,
        )
        every = np.arange(0, count, max(1, round(count / 8)))
        ax.set_xticks(every + 0.5, every + 1, rotation=0)
        ax.set_yticks(every + 0.5, every + 1, rotation=0)
        ax.set_xlabel(f"eigenvector of {rung_label(reference)}, by rank")
        ax.set_ylabel(f"eigenvector of {rung_label(rung)}, by rank")
        ax.set_title(f"{rung_label(rung)} against {rung_label(reference)}")
    return ax


def plot_weyl(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """|μ_i − ν_i| of every step by rank; the thin level line is the Weyl bound ‖Δ‖₂.

    Args:
        data: from ``spectrum.perturbation.movements``.
        ax: where to draw.
    """
    with report_style():
        ax = axes_or_new(ax)
        index = data["index"].values
        for step, look in _looks(data):
            here = data.sel(step=step)
            moved = here["moved"].values
            shown = np.sort(moved)[::-1]
            floor = 1e-9 * float(here["spectral_norm"])
            last = int((shown > floor).sum())
            picked = np.unique(np.geomspace(1, max(last, 1), POINTS).round().astype(int)) - 1
            label = STEP_LABELS.get(step, isolated(step, 30))
            ax.plot(index[picked], shown[picked], label=label, **look)
            ax.axhline(float(here["spectral_norm"]), **{**look, "linewidth": 0.7})
        log_scale(ax, "x", "y")
        ax.set_xlabel("eigenvalue, most moved first")
        ax.set_ylabel("movement |μᵢ − νᵢ|")
        ax.set_title("Eigenvalues moved, and Weyl bounds (level)")
        legend_below(ax, columns=2)
    return ax


def plot_davis_kahan(data: xr.Dataset, largest: int = 40, ax: Axes | None = None) -> Axes:
    """‖sin Θ‖_F of the k leading eigenvectors divided by √k; thin lines are Davis–Kahan bounds.

    Args:
        data: from ``spectrum.perturbation.movements``, with subspaces.
        largest: k up to which to draw.
        ax: where to draw.
    """
    with report_style():
        ax = axes_or_new(ax)
        k = data["k"].values[:largest]
        for step, look in _looks(data):
            here = data.sel(step=step).isel(k=slice(0, largest))
            label = STEP_LABELS.get(step, isolated(step, 30))
            ax.plot(k, here["sine"].values / np.sqrt(k), label=label, **look)
            ax.plot(k, here["sine_bound"].values / np.sqrt(k), **{**look, "linewidth": 0.7})
        ax.set_ylim(0.0, 1.04)
        ax.set_xlabel("k leading eigenvectors (by value)")
        ax.set_ylabel("‖sin Θ‖ / √k")
        ax.set_title("Subspaces turned, and bounds (thin)")
        legend_below(ax, columns=2)
    return ax


def _looks(data: xr.Dataset) -> list[tuple[str, dict[str, Any]]]:
    """Step → look: that of the rung which the step leads to."""
    after = [str(name) for name in data["after"].values]
    styles = rung_styles(after)
    return [
        (str(step), {"color": styles[rung].color, "linestyle": styles[rung].dash})
        for step, rung in zip(data["step"].values, after, strict=True)
    ]


def plot_gradient_energy(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of gradient energy and of curvature in every band.

    Args:
        data: from ``spectrum.bands.gradient_energy``.
        ax: where to draw.
    """
    place = np.arange(data.sizes["band"])
    with report_style():
        ax = axes_or_new(ax, width=5.6)
        parts = (
            ("query gradients", data["share"].sel(split="query").values, "#0072b2", ""),
            ("training gradients", data["share"].sel(split="train").values, "#c07800", "////"),
            ("curvature Σ|μ|", data["curvature"].values, "#b4bac4", ""),
        )
        for i, (name, values, color, hatch) in enumerate(parts):
            ax.bar(
                place + 0.27 * (i - 1),
                values,
                width=0.26,
                color=color,
                hatch=hatch,
                edgecolor=PAPER,
                linewidth=0,
                label=name,
            )
        _band_axis(ax, data)
        ax.set_ylabel("share")
        ax.set_title("Where the gradients lie in the spectrum")
        ax.legend(loc="upper left", handlelength=2.4)
    return ax


def plot_score_error(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of the squared score error in every band, one row of marks per rung.

    Args:
        data: from ``spectrum.bands.score_error``; rungs equal to the reference are left out.
        ax: where to draw.
    """
    rungs = [str(r) for r in data["rung"].values if np.isfinite(data["share"].sel(rung=r)).any()]
    styles = rung_styles(map(str, data["rung"].values))
    place = np.arange(data.sizes["band"])
    with report_style():
        ax = axes_or_new(ax, width=5.6)
        if not rungs:
            return say_missing(ax, "no rung differs from the reference")
        for i, rung in enumerate(rungs):
            style = styles[rung]
            shift = 0.6 * ((i + 0.5) / len(rungs) - 0.5)
            relative = float(data["relative"].sel(rung=rung))
            values = data["share"].sel(rung=rung).values
            ax.vlines(place + shift, 0.0, values, color=style.color, linewidth=1.4)
            ax.plot(
                place + shift,
                values,
                linestyle="none",
                marker=style.marker,
                markersize=4,
                color=style.color,
                label=f"{rung_label(rung)} ({relative:.2g})",
            )
        ax.axhline(0.0, color=INK, linewidth=0.8)
        _band_axis(ax, data)
        ax.set_ylabel("share of squared score error")
        ax.set_title("Which band costs attribution (relative error)")
        ax.legend(loc="upper left", handlelength=2.4)
    return ax


def _band_axis(ax: Axes, data: xr.Dataset) -> None:
    names = []
    for sign, decade in zip(data["sign"].values, data["decade"].values, strict=True):
        mark = MINUS if sign < 0 else ""
        names.append("≈ 0" if sign == 0 else f"{mark}10{superscript(int(decade))}")
    ax.set_xticks(np.arange(len(names)), names, rotation=90 if len(names) > 9 else 0)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("eigenvalue of the reference (by decade)")
