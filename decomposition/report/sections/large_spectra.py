"""Spectra of a model whose matrices do not fit into memory, each number with its error."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Table, Text
from decomposition.report.figures.large_spectra import (
    further_out,
    plot_counts,
    plot_large_density,
)
from decomposition.report.palette import rung_label
from decomposition.report.study import Study, labels
from decomposition.report.wording import joined, number, plural

COUNTS = ("numerical_rank", "negative_count")
ROUNDING = 1e-12
"""Relative error below which a number is exact."""
QUANTITIES = {
    "lowest": "lowest eigenvalue",
    "highest": "highest eigenvalue",
    "spectral": "spectral norm, max |μ|",
    "nuclear": "nuclear norm, Σ |μ|",
    "effective_rank": "effective rank, exp of the entropy of |μ| / Σ |μ|",
    "stable_rank": "stable rank, Σ μ² / max μ²",
    "numerical_rank": "non-zero eigenvalues",
    "negative_count": "negative eigenvalues",
    "negative_mass": "their mass, Σ |μ| over μ < 0",
    "negative_share": "the same, as a part of Σ |μ|",
}


def spectra_blocks(study: Study) -> list[Block]:
    """Density, counts, scores, effective dimensions and ends; nothing where there is no group."""
    density, summary = study.group("/spectral_density"), study.group("/spectral_summary")
    if density is None or summary is None:
        return []
    blocks: list[Block] = [
        Text(_how(density)),
        _density(density),
        _counts(density),
        _scores(summary),
    ]
    dimension = study.group("/effective_dimension")
    if dimension is not None:
        blocks.append(_dimensions(dimension))
    ends = study.group("/spectral_ends")
    if ends is not None and "hessian" in labels(ends["eigenvalue"], "rung"):
        blocks += _ends(ends.sel(rung="hessian"))
    return blocks


def _how(data: xr.Dataset) -> str:
    """Which numbers are estimates, and what was spent on them."""
    rungs = labels(data["density"], "rung")
    estimated = [r for r in rungs if int(data["estimated"].sel(rung=r))]
    exact = [rung_label(r, 120) for r in rungs if r not in estimated]
    spent = [
        f"{rung_label(r, 120)} ({plural(int(data['products'].sel(rung=r)), 'product')})"
        for r in estimated
    ]
    known = f"All eigenvalues of {joined(exact)} are known, zeros included. " if exact else ""
    return (
        f"{known}The spectrum of {joined(spent)} is an estimate: the eigenvalues at its ends are "
        "found by Lanczos iteration (± residual), the rest is a quadrature from random probes. "
        "Its errors (±) are the standard error over the probes and half of what the quadrature "
        "still changed over the last half of its steps. Lowest and highest are those found. "
        "Counts come with bounds [lower, upper] that hold for every spectrum with the same "
        "quadrature, widened by three standard errors. The spectral norm of a difference, in the "
        "tables of spectral errors below, is a lower bound, and ± is its residual. Everything "
        "without ± or bounds is exact."
    )


def _density(data: xr.Dataset) -> Figure:
    rungs = labels(data["density"], "rung")
    mu = data["eigenvalue"].values
    rows: list[tuple[Cell, ...]] = []
    peaks = []
    for rung in rungs:
        here = data.sel(rung=rung)
        value, error = here["density"].values, here["standard_error"].values
        rows += [(rung, *map(float, row)) for row in zip(mu, value, error, strict=True)]
        peaks.append(f"{rung_label(rung)} at {_near(mu, value)}")
    said = f"Most eigenvalues per decade: {joined(peaks)}."
    return Figure(
        "large-density",
        f"Spectral density by rung on a symmetric logarithmic axis. {said}",
        f"Eigenvalues per decade, smoothed over {number(float(data.attrs['width']), 1)} decades; "
        "bands are ± 2 errors of what is estimated, which is not drawn nearer to 0 than it "
        f"resolves. Negative eigenvalues lie on the left. {said}",
        partial(plot_large_density, data),
        Table(
            "large-density", "Spectral density", ("rung", "μ", "per decade", "error"), tuple(rows)
        ),
    )


def _near(mu: np.ndarray, value: np.ndarray) -> str:
    """Where a density peaks."""
    peak = float(mu[int(np.nanargmax(value))])
    # zeros are smeared over the linear part of the axis, and the nearest position is as good as 0
    return "0" if abs(peak) <= 4 * float(np.abs(mu).min()) else number(peak, 2)


def _counts(data: xr.Dataset) -> Figure:
    mu, rungs = data["eigenvalue"].values, labels(data["count"], "rung")
    rows: list[tuple[Cell, ...]] = []
    for rung in rungs:
        parts = further_out(data.sel(rung=rung))
        rows += [(rung, *map(float, row)) for row in zip(mu, *parts, strict=True)]
    columns = ("rung", "μ", "further from 0", "lower", "upper")
    said = "Left of 0 eigenvalues below μ are counted, right of it those above."
    return Figure(
        "large-counts",
        f"Number of eigenvalues further from zero than μ, by rung. {said}",
        f"{said} A band lies between the bounds of an estimated count: near 0 it is wide, because "
        "no quadrature tells a small eigenvalue from a zero.",
        partial(plot_counts, data),
        Table("large-counts", "Number of eigenvalues beyond μ", columns, tuple(rows)),
    )


def _scores(data: xr.Dataset) -> Table:
    rungs = labels(data["value"], "rung")
    rows = tuple(
        (QUANTITIES.get(q, q), *(_score(data.sel(quantity=q, rung=r)) for r in rungs))
        for q in labels(data["value"], "quantity")
    )
    columns = ("quantity", *(rung_label(r, 120) for r in rungs))
    return Table("large-spectra", "Spectra in numbers", columns, rows)


def _score(one: xr.Dataset) -> Cell:
    value, error = float(one["value"]), float(one["standard_error"])
    lower, upper = float(one["lower"]), float(one["upper"])
    if lower < upper:
        return f"{round(value):,} [{np.floor(lower):,.0f}, {np.ceil(upper):,.0f}]"
    if str(one["quantity"].values) in COUNTS and np.isfinite(value):
        return round(value)
    return with_error(value, error)


def _dimensions(data: xr.Dataset) -> Table:
    rungs = labels(data["dimension"], "rung")
    rows = []
    for damping in data["damping"].values:
        here = data.sel(damping=damping)
        cells = (
            with_error(float(one["dimension"]), float(one["standard_error"]))
            for one in (here.sel(rung=r) for r in rungs)
        )
        rows.append((float(damping), *cells))
    columns = ("λ", *(rung_label(r, 120) for r in rungs))
    caption = "Effective dimension Σ |μ| / (|μ| + λ)"
    return Table("large-dimension", caption, columns, tuple(rows))


def _ends(data: xr.Dataset) -> list[Block]:
    rows: list[tuple[Cell, ...]] = []
    for rank in data["rank"].values:
        pair = []
        for end in ("lowest", "highest"):
            one = data.sel(rank=rank, end=end)
            pair.append(with_error(float(one["eigenvalue"]), float(one["residual"])))
        if any(cell is not None for cell in pair):
            rows.append((int(rank), *pair))
    if not rows:
        return []
    columns = ("rank", "from below, ± residual", "from above, ± residual")
    return [Table("large-ends", "Eigenvalues at both ends of the Hessian", columns, tuple(rows))]


def with_error(value: float, error: float) -> Cell:
    """``value ± error``; the value alone where it is exact, nothing where it is unknown."""
    if not np.isfinite(value):
        return None
    if not error > ROUNDING * abs(value):
        return value
    return f"{number(value)} ± {number(error, 2)}"
