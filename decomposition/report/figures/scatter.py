"""Spectral error against attribution: does the one predict the other?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from decomposition.names import BASELINES, CHAIN
from decomposition.report.figures.bands import BEYOND
from decomposition.report.figures.canvas import (
    axes_or_new,
    head,
    legend_below,
    legend_outside,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.figures.points import draw_lines, limits
from decomposition.report.interval import Interval
from decomposition.report.names import METRIC_LABELS, protocol_label, rung_label, step_label
from decomposition.report.palette import MUTED, RungStyle, step_style
from decomposition.report.result import Result, interval, labels

REFERENCE = "hessian"
LARGE, SMALL = 22, 7
"""Sizes of marks."""
AT_DAMPING = ("/shares/at_damping", "level")
CHAIN_RUNG = "chain_rung"
"""The rungs' dimension in results of old."""
ERRORS = {
    "relative_frobenius": "‖H − C‖ / ‖H‖",
    "misaligned_solutions": "misalignment of the damped solutions",
}
"""Error of ``/spectral_error`` → what is on the axis."""


def paired(result: Result, metric: str) -> xr.Dataset | None:
    """``error`` and ``loss`` (rung, damping) of the places that have both; or None.

    The loss is the reference's LDS minus the rung's at the same damping; a metric without
    damping goes with the levels under ``tuned``, and its damping has one entry, zero.
    """
    damped = result.array("/spectral_error", "damped_value")
    if damped is not None and metric in labels(damped, "metric"):
        error = damped.sel(metric=metric, drop=True)
        if bool(error.notnull().any()):
            return _damped(result, error)
    plain, level = result.array("/spectral_error", "value"), result.array("/shares", "level")
    if plain is None or level is None or metric not in labels(plain, "metric"):
        return None
    if "tuned" not in labels(level, "protocol") or REFERENCE not in labels(level, "rung"):
        return None
    lds = level.sel(protocol="tuned", ci_bound="estimate", drop=True)
    error = plain.sel(metric=metric, drop=True)
    pair = [array.expand_dims(damping=[0.0]) for array in (error, lds)]
    return _places(*pair)


def _damped(result: Result, error: xr.DataArray) -> xr.Dataset | None:
    mean = result.array("/attribution", "lds_mean")
    if mean is None or REFERENCE not in labels(mean, "rung"):
        return None
    lds = mean.sel(ci_bound="estimate", drop=True)
    grid = np.asarray(lds["damping"].values, dtype=float)
    wanted = np.asarray(error["damping"].values, dtype=float)
    # the two grids went through a file; equal values may differ in the last digit
    shared = wanted[[bool(np.isclose(grid, value).any()) for value in wanted]]
    if not shared.size:
        return None
    near = lds.sel(damping=shared, method="nearest").assign_coords(damping=shared)
    return _places(error.sel(damping=shared), near)


def _places(error: xr.DataArray, lds: xr.DataArray) -> xr.Dataset | None:
    loss = lds.sel(rung=REFERENCE, drop=True) - lds
    rungs = [
        rung
        for rung in labels(error, "rung")
        if rung in labels(loss, "rung") and rung != REFERENCE and rung not in BASELINES
    ]
    both = xr.Dataset(
        {
            "error": error.sel(rung=rungs).reset_coords(drop=True),
            "loss": loss.sel(rung=rungs).reset_coords(drop=True),
        }
    ).transpose("rung", "damping")
    both = both.where(both["error"].notnull() & both["loss"].notnull())
    return both if bool(both["error"].notnull().any()) else None


def plot_prediction(
    tree: xr.DataTree,
    metric: str = "damped_inverse_queries",
    cell: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """LDS lost against a spectral error; lines join the damping values of one rung."""
    result = Result(tree, cell)
    data = paired(result, metric)
    with report_style():
        ax = axes_or_new(ax, height=3.8)
        if data is None:
            return say_missing(ax, "no spectral errors beside an LDS in this result")
        rungs = [r for r in result.rungs if r in labels(data["error"], "rung")]
        points = [
            (float(error), rung, Interval(float(loss), float(loss), float(loss)))
            for rung in rungs
            for error, loss in zip(
                data["error"].sel(rung=rung).values, data["loss"].sel(rung=rung).values, strict=True
            )
            if error > 0
        ]
        names = {rung: rung_label(rung) for rung in rungs}
        draw_lines(ax, {r: result.styles[r] for r in rungs}, points, names=names)
        ax.axhline(0, color=MUTED, linewidth=1.0)
        log_scale(ax, "x")
        ax.set_xlabel(METRIC_LABELS.get(metric, metric))
        ax.set_ylabel("LDS lost against the Hessian, same λ")
        head(ax, result.name or "LDS lost against spectral error")
        legend_below(ax, columns=3)
    return ax


def errors_of(result: Result, error: str, protocol: str) -> xr.DataArray | None:
    """(cell, rung) one of ERRORS, at the protocol's dampings where it has any; or None."""
    if error == "misaligned_solutions":
        found = result.known("/spectral_error", "misaligned_solutions")
        if found is None or protocol not in labels(found, "protocol"):
            return None
        return found.sel(protocol=protocol)
    value = result.known("/spectral_error", "value")
    if value is None or error not in labels(value, "metric"):
        return None
    return value.sel(metric=error)


def plot_error_and_level(
    tree: xr.DataTree,
    error: str = "relative_frobenius",
    protocol: str = "equal",
    ax: Axes | None = None,
) -> Axes:
    """A mark per cell and rung: where it falls to the right, a better matrix has a better score.

    In a small study the rungs of a cell are joined.

    Args:
        tree: a result.
        error: one of ERRORS.
        protocol: damping protocol.
        ax: where to draw.
    """
    result = Result(tree)
    level, array = result.known("/shares", "level"), errors_of(result, error, protocol)
    with report_style():
        ax = axes_or_new(ax, 4.8, 4.0)
        if level is None or array is None or protocol not in labels(level, "protocol"):
            return say_missing(ax, "no errors to compare in this result")
        lds = level.sel(protocol=protocol, ci_bound="estimate", drop=True)
        both = xr.Dataset({"x": array.reset_coords(drop=True), "y": lds.reset_coords(drop=True)})
        rungs = [r for r in result.drawn if r not in BASELINES and r in both["rung"]]
        frame = both.sel(rung=rungs).to_dataframe().reset_index().dropna()
        if result.small and result.many:
            for _, line in frame.sort_values("x").groupby("cell"):
                ax.plot(line["x"], line["y"], color=MUTED, lw=0.6, alpha=0.4, zorder=1)
        styles = {r: result.styles[r] for r in rungs if r in set(frame["rung"])}
        _dots(ax, frame, "rung", styles, LARGE if result.small else SMALL)
        ax.set(xlabel=ERRORS.get(error, error), ylabel="LDS")
        head(ax, protocol_label(protocol))
        legend_outside(ax, [(style, rung_label(r)) for r, style in styles.items()])
    return ax


def residual_points(result: Result, metric: str) -> pd.DataFrame | None:
    """cell, rung, damping, x (the residual) and y (the LDS) of the chain at one λ; or None."""
    error = result.known("/spectral_error", "damped_value")
    level = result.known("/shares/at_damping", "level")
    if error is None or level is None or metric not in labels(error, "metric"):
        return None
    frames = []
    for one in result.each():
        x, y = (one.array(*at) for at in (("/spectral_error", "damped_value"), AT_DAMPING))
        lambdas = one.array("/shares/at_damping", "damping_value")
        if x is None or y is None or lambdas is None or CHAIN_RUNG in y.dims:
            continue
        y = y.sel(ci_bound="estimate", drop=True)
        x = x.sel(metric=metric, drop=True).dropna("damping", how="all")
        for place, damping in enumerate(lambdas.values.tolist()):
            near = np.isclose(x["damping"].values, damping)
            if near.any():
                pair = xr.Dataset(
                    {
                        "x": x.isel(damping=int(near.argmax())).reset_coords(drop=True),
                        "y": y.isel(multiplier=place).reset_coords(drop=True),
                    }
                )
                found = pair.sel(rung=list(CHAIN)).to_dataframe().reset_index()
                frames.append(found.assign(cell=one.cells[0], damping=damping, place=place))
    rows = pd.concat(frames, ignore_index=True).dropna() if frames else pd.DataFrame()
    return rows.query("x > 0") if len(rows) else None


def plot_residual(
    tree: xr.DataTree, metric: str = "inverse_residual_train", ax: Axes | None = None
) -> Axes:
    """LDS against the residual of the inverse: a mark per rung, λ and cell, larger at larger λ.

    Of one cell a line joins the λ of a rung.
    """
    result = Result(tree)
    rows = residual_points(result, metric)
    with report_style():
        ax = axes_or_new(ax, 4.8, 4.0)
        if rows is None:
            return say_missing(ax, "no residuals beside an LDS in this result")
        styles = {r: result.styles[r] for r in CHAIN if r in set(rows["rung"])}
        if not result.many:
            for rung, line in rows.sort_values("place").groupby("rung"):
                ax.plot(line["x"], line["y"], color=styles[str(rung)].color, lw=0.8, alpha=0.5)
        for number, (_, marks) in enumerate(rows.groupby("place")):
            _dots(ax, marks, "rung", styles, 6 + 34 * number / len(set(rows["place"])))
        log_scale(ax, "x")
        ax.set(xlabel=METRIC_LABELS.get(metric, metric), ylabel="LDS at the same λ")
        head(ax, "LDS against the residual of the inverse")
        legend_outside(ax, [(style, rung_label(r)) for r, style in styles.items()])
    return ax


def _dots(
    ax: Axes, frame: pd.DataFrame, by: str, styles: dict[str, RungStyle], size: float
) -> None:
    """A mark per row of ``frame``, columns x and y, in the look of its ``by``."""
    sns.scatterplot(
        frame,
        x="x",
        y="y",
        hue=by,
        style=by,
        hue_order=list(styles),
        style_order=list(styles),
        palette={name: style.color for name, style in styles.items()},
        markers={name: style.marker for name, style in styles.items()},
        s=size,
        linewidth=0,
        legend=False,
        ax=ax,
    )


def frobenius_shares(result: Result) -> dict[tuple[int, str], float]:
    """(cell, step) → share of ‖H − K‖², the cross term included; empty where there are none."""
    share = result.known("/shares", "share")
    if share is None or "frobenius_squared" not in labels(share, "metric"):
        return {}
    # no damping enters: the first protocol stands for all
    first = share.isel(protocol=0).sel(metric="frobenius_squared", ci_bound="estimate")
    return {
        (cell, step): float(value)
        for cell in result.cells
        for step in labels(first, "step")
        if np.isfinite(value := float(first.sel({"step": step} | _cell(first, cell))))
    }


def _cell(array: xr.DataArray, cell: int) -> dict[str, int]:
    return {"cell": cell} if "cell" in array.dims else {}


def plot_frobenius(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """A mark per cell and step; on the diagonal the matrix error would tell the loss of LDS.

    Intervals are drawn in a small study.
    """
    result = Result(tree)
    share, of_error = result.known("/shares", "share"), frobenius_shares(result)
    with report_style():
        ax = axes_or_new(ax, 4.8, 4.0)
        if share is None or not of_error or protocol not in labels(share, "protocol"):
            return say_missing(ax, "no shares to compare in this result")
        rows = [
            (step, 100 * of_error[cell, step], _scaled(share, cell, protocol, step))
            for cell in result.cells
            for step in result.steps
            if (cell, step) in of_error
        ]
        known = [row for row in rows if row[2].known]
        if not known:
            return say_missing(ax, "shares of the LDS are undefined in every cell")
        ends = limits((value for *_, value in known), BEYOND, (0.0, 100.0))
        places = [x for _, x, _ in known]
        ax.plot([-500, 500], [-500, 500], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        styles = {step: step_style(step) for step in result.steps}
        if result.small:
            for step, x, value in known:
                low, high = np.clip([value.lower, value.upper], *ends)
                ax.vlines(x, low, high, color=styles[step].color, linewidth=0.8)
        frame = pd.DataFrame([{"step": s, "x": x, "y": v.estimate} for s, x, v in known])
        met = {s: style for s, style in styles.items() if s in set(frame["step"])}
        _dots(ax, frame, "step", met, LARGE if result.small else SMALL)
        ax.axhline(0, color=MUTED, linewidth=0.8)
        ax.set_xlim(min([0.0, *places]) - 4, max(places) + 6)
        ax.set_ylim(*ends)
        ax.set(xlabel="share of ‖H − K‖² (%)", ylabel="share of the LDS lost (%)")
        head(ax, protocol_label(protocol))
        legend_outside(ax, [(style, step_label(s)) for s, style in met.items()])
    return ax


def _scaled(share: xr.DataArray, cell: int, protocol: str, step: str) -> Interval:
    place = {"metric": "lds", "protocol": protocol, "step": step} | _cell(share, cell)
    found = interval(share, **place)
    return Interval(*(100 * v for v in (found.lower, found.estimate, found.upper)))
