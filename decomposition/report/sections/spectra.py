"""Spectra of the rungs, the forms in which they were held, and errors of each as a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Table, Text
from decomposition.report.figures.pairs import pairs, plot_mismatch
from decomposition.report.figures.spectra import (
    further_out,
    plot_counts,
    plot_density,
    plot_spectra,
    ranked,
)
from decomposition.report.names import rung_label
from decomposition.report.result import Result, labels
from decomposition.report.sections.by_cell import Row, figures, table
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
FORMS = {
    "dual": "The dual form holds the GGN exactly through its N·C × N·C Gram matrix.",
    "structured": "The structured form holds EK-FAC and K-FAC by their factors.",
    "matrix-free": "A matrix-free rung is known by its products: its damped systems are solved by "
    "iteration, and its norm and trace are exact where no ± stands beside them, else estimated "
    "with random probes.",
}
"""What a reader has to know of each."""


def spectra_blocks(result: Result) -> list[Block]:
    """Spectra overlaid, products against exact values, in numbers, and how each rung was held."""
    blocks: list[Block] = []
    if result.few:
        blocks += figures(result, "spectra", "Spectra", _spectra)
        blocks += figures(result, "mismatch", "Eigenvalue mismatch", _mismatch)
    blocks += [*_error_parts(result), *_estimated(result), *_forms_blocks(result)]
    return [Text(_finding(result)), *blocks] if blocks else []


def _finding(result: Result) -> str:
    """Negative eigenvalues of the Hessian, and how far product eigenvalues are off."""
    parts = []
    values = result.array("/spectrum", "eigenvalues")
    if values is not None and not result.many and "hessian" in labels(values, "rung"):
        here = values.sel(rung="hessian").values
        known = here[np.isfinite(here)]
        if known.size:
            parts.append(
                f"The Hessian has {plural(int((known < 0).sum()), 'negative eigenvalue')} of "
                f"{known.size:,}, from {number(known.min(), 2)} to {number(known.max(), 2)}."
            )
    off = {} if result.many else _factors(result)
    if off:
        told = joined([f"{number(factor, 2)} in layer {name}" for name, factor in off.items()])
        parts.append(f"In the median a product eigenvalue of K-FAC is off by a factor of {told}.")
    return " ".join(parts) or "Spectra of the rungs, and the forms in which they were held."


def _error_parts(result: Result) -> list[Block]:
    caption = "Shares of ‖B − K‖², K-FAC's squared error from the block GGN"
    columns = ("layer", "one scale for the layer", "rest of the diagonal", "basis", "of the whole")
    return table(result, "eigenvalue-error", caption, columns, _parts_rows)


def _parts_rows(one: Result) -> Iterator[Row]:
    """Every layer's parts in per cent of its error, and its error of the whole; first of all."""
    squared = one.known("/eigenvalue_error", "squared")
    if squared is None:
        return
    known = squared.transpose("part", "layer").dropna("layer", how="all")
    whole = float(known.sum())
    if not whole:
        return
    yield ("all", *_per_cent(known.sum("layer").values, whole), "100%")
    for layer in labels(known, "layer"):
        values = known.sel(layer=layer).values
        total = float(values.sum())
        if total:
            yield (one.layer(layer), *_per_cent(values, total), *_per_cent([total], whole))


def _per_cent(values: Iterable[float], whole: float) -> list[Cell]:
    return [f"{100 * value / whole:.1f}%" for value in values]


def _factors(one: Result) -> dict[str, float]:
    """Layer → median factor between product and exact eigenvalues."""
    found = {}
    for name, data in one.children("/spectrum").items():
        if {"ekfac_eigenvalues", "kfac_eigenvalues"} <= set(data.data_vars):
            exact, product = pairs(data)
            if exact.size:
                factor = np.median(np.maximum(product / exact, exact / product))
                found[one.layer(name)] = float(factor)
    return found


def _spectra(one: Result, name: str) -> Figure | None:
    values = one.array("/spectrum", "eigenvalues")
    if values is None:
        return None
    rungs = [r for r in one.rungs if r in labels(values, "rung")]
    parts = []
    rows: list[tuple[Cell, ...]] = []
    for rung in rungs:
        here = values.sel(rung=rung).values
        known = here[np.isfinite(here)]
        if not known.size:
            continue
        parts.append(f"{rung_label(rung)} from {number(known.min())} to {number(known.max())}")
        for sign, side in ((1, "positive"), (-1, "negative")):
            for rank, size in zip(*ranked(here, sign), strict=True):
                rows.append((rung, side, int(rank), float(size)))
    hessian = values.sel(rung="hessian").values if "hessian" in rungs else np.empty(0)
    negative = int((hessian < 0).sum())
    more = f" The Hessian has {plural(negative, 'negative eigenvalue')}." if negative else ""
    of = f" in {one.name}" if one.name else ""
    return Figure(
        name,
        f"Eigenvalues by rung{of}: {joined(parts)}.{more}",
        f"Magnitude against rank{of}; thin dotted lines are negative eigenvalues.",
        partial(plot_spectra, one.tree, cell=one.cell),
        Table(name, "Eigenvalues", ("rung", "sign", "rank", "magnitude"), tuple(rows)),
    )


def _mismatch(one: Result, figure: str) -> Figure | None:
    rows: list[tuple[Cell, ...]] = []
    for name, data in one.children("/spectrum").items():
        if {"ekfac_eigenvalues", "kfac_eigenvalues"} <= set(data.data_vars):
            exact, product = pairs(data)
            rows += [(name, float(e), float(k)) for e, k in zip(exact, product, strict=True)]
    if not rows:
        return None
    of = f" of {one.name}" if one.name else ""
    told = joined(
        [f"layer {name} by a factor of {number(f, 2)}" for name, f in _factors(one).items()]
    )
    return Figure(
        figure,
        f"K-FAC's product eigenvalues against exact ones{of}: in the median off in {told}.",
        "Along the same Kronecker eigenvectors; above the line K-FAC overestimates.",
        partial(plot_mismatch, one.tree, cell=one.cell),
        Table(figure, "Paired eigenvalues", ("layer", "EK-FAC", "K-FAC"), tuple(rows)),
    )


def _forms_blocks(result: Result) -> list[Block]:
    """Forms, norms and solves of the rungs."""
    form = result.array("/forms", "form")
    if form is None:
        return []
    met = set(map(str, form.values.reshape(-1)))
    told = [text for kind, text in FORMS.items() if kind in met]
    blocks: list[Block] = []
    if met & {"dual", "matrix-free"}:
        told.insert(0, "The P × P matrices of this model do not fit into the memory given.")
    if told:
        blocks.append(Text(" ".join(told)))
    columns = (
        "rung",
        "form",
        "squared Frobenius norm",
        "trace",
        "systems solved by iteration",
        "products per system",
        "largest residual",
    )
    blocks += table(result, "forms", "How each rung was held", columns, _forms)
    return blocks


def _forms(one: Result) -> Iterator[Row]:
    data = one.group("/forms")
    assert data is not None
    for rung in labels(data["form"], "rung"):
        here = data.sel(rung=rung)
        systems = int(here["systems"])
        yield (
            rung_label(rung, 120),
            str(here["form"].values),
            with_error(float(here["squared_norm"]), float(here["squared_norm_error"])),
            with_error(float(here["trace"]), float(here["trace_error"])),
            systems or None,
            int(here["products"]) / systems if systems else None,
            float(here["residual"]) if systems else None,
        )


def _estimated(result: Result) -> list[Block]:
    """Density, counts, scores, effective dimensions and ends; nothing where there is no group."""
    density, summary = result.group("/spectral_density"), result.group("/spectral_summary")
    blocks: list[Block] = []
    if density is not None:
        blocks += [Text(_how(density)), _density(density), _counts(density)]
    if summary is not None:
        rungs = labels(summary["value"], "rung")
        columns = ("quantity", *(rung_label(r, 120) for r in rungs))
        blocks += table(result, "spectral-summary", "Spectra in numbers", columns, _scores)
    dimension = result.group("/effective_dimension")
    if dimension is not None:
        columns = ("λ", *(rung_label(r, 120) for r in labels(dimension["dimension"], "rung")))
        caption = "Effective dimension Σ |μ| / (|μ| + λ)"
        blocks += table(result, "effective-dimension", caption, columns, _dimensions)
    ends = result.group("/spectral_ends")
    if ends is not None and "hessian" in labels(ends["eigenvalue"], "rung"):
        columns = ("rank", "from below, ± residual", "from above, ± residual")
        caption = "Eigenvalues at both ends of the Hessian"
        blocks += table(result, "spectral-ends", caption, columns, _ends)
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
    if not spent:
        return (
            "Everything is exact: the eigenvalues of every rung are known, zeros included. The "
            "density is smoothed for the eye."
        )
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
        "density",
        f"Spectral density by rung on a symmetric logarithmic axis. {said}",
        f"Eigenvalues per decade, smoothed over {number(float(data.attrs['width']), 1)} decades; "
        "bands are ± 2 errors of what is estimated, which is not drawn nearer to 0 than it "
        f"resolves. Negative eigenvalues lie on the left. {said}",
        partial(plot_density, data),
        Table("density", "Spectral density", ("rung", "μ", "per decade", "error"), tuple(rows)),
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
        "counts",
        f"Number of eigenvalues further from zero than μ, by rung. {said}",
        f"{said} A band lies between the bounds of an estimated count: near 0 it is wide, because "
        "no quadrature tells a small eigenvalue from a zero.",
        partial(plot_counts, data),
        Table("counts", "Number of eigenvalues beyond μ", columns, tuple(rows)),
    )


def _scores(one: Result) -> Iterator[Row]:
    data = one.group("/spectral_summary")
    assert data is not None
    rungs = labels(data["value"], "rung")
    for quantity in labels(data["value"], "quantity"):
        cells = (_score(data.sel(quantity=quantity, rung=r)) for r in rungs)
        yield (QUANTITIES.get(quantity, quantity), *cells)


def _score(one: xr.Dataset) -> Cell:
    value, error = float(one["value"]), float(one["standard_error"])
    lower, upper = float(one["lower"]), float(one["upper"])
    if lower < upper:
        return f"{round(value):,} [{np.floor(lower):,.0f}, {np.ceil(upper):,.0f}]"
    if str(one["quantity"].values) in COUNTS and np.isfinite(value):
        return round(value)
    return with_error(value, error)


def _dimensions(one: Result) -> Iterator[Row]:
    data = one.group("/effective_dimension")
    assert data is not None
    for damping in data["damping"].values:
        here = data.sel(damping=damping)
        cells = (
            with_error(float(at["dimension"]), float(at["standard_error"]))
            for at in (here.sel(rung=r) for r in labels(data["dimension"], "rung"))
        )
        yield (float(damping), *cells)


def _ends(one: Result) -> Iterator[Row]:
    data = one.group("/spectral_ends")
    assert data is not None
    for rank in data["rank"].values:
        at = [data.sel(rung="hessian", rank=rank, end=end) for end in ("lowest", "highest")]
        pair = [with_error(float(end["eigenvalue"]), float(end["residual"])) for end in at]
        if any(cell is not None for cell in pair):
            yield (int(rank), *pair)


def with_error(value: float, error: float) -> Cell:
    """``value ± error``; the value alone where it is exact, nothing where it is unknown."""
    if not np.isfinite(value):
        return None
    if not error > ROUNDING * abs(value):
        return value
    return f"{number(value)} ± {number(error, 2)}"
