"""Section 6: eigenvalues of every rung, the mismatch of products, spectral errors."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Section, Table, Text, missing
from decomposition.report.figures.mismatch import pairs, plot_mismatch
from decomposition.report.figures.spectra import plot_spectra, ranked
from decomposition.report.palette import rung_label
from decomposition.report.study import METRIC_LABELS, Study, labels
from decomposition.report.wording import isolated, joined, number, plural


def spectra(study: Study) -> Section:
    """Spectra overlaid, products against exact values, and the table of spectral errors."""
    blocks: list[Block] = []
    values = study.array("/spectrum", "eigenvalues")
    if values is None and study.group("/spectral_density") is not None:
        blocks.append(Text("Densities and counts stand under “How it was computed at this size”."))
    elif values is None:
        blocks.append(missing("The result holds no spectra."))
    else:
        blocks.append(_spectra(study, values))
    blocks += _mismatch(study)
    errors = study.group("/spectral_error")
    if errors is None:
        blocks.append(missing("The result holds no spectral errors."))
    else:
        blocks.append(
            Text(
                "Errors of each rung as a matrix, first against the exact Hessian H, then against "
                "the GGN G. A number after ± is the standard error of a stochastic estimate."
            )
        )
        blocks += _tables(study, errors)
    return Section("spectra", "Spectra and eigenvalue mismatch", tuple(blocks))


def _spectra(study: Study, values: xr.DataArray) -> Figure:
    rungs = [r for r in study.rungs if r in labels(values, "rung")]
    parts = []
    rows: list[tuple[Cell, ...]] = []
    for rung in rungs:
        here = values.sel(rung=rung).values
        known = here[np.isfinite(here)]
        if not known.size:
            continue
        parts.append(f"{rung_label(rung)} from {number(known.min())} to {number(known.max())}")
        for sign, name in ((1, "positive"), (-1, "negative")):
            for rank, size in zip(*ranked(here, sign), strict=True):
                rows.append((rung, name, int(rank), float(size)))
    hessian = values.sel(rung="hessian").values if "hessian" in rungs else np.empty(0)
    negative = int((hessian < 0).sum())
    more = f" The Hessian has {plural(negative, 'negative eigenvalue')}." if negative else ""
    return Figure(
        "spectra",
        f"Eigenvalues by rung: {joined(parts)}.{more}",
        f"Magnitude against rank; thin dotted lines are negative eigenvalues.{more} The data are "
        "thinned to the points drawn; result.nc holds every eigenvalue.",
        partial(plot_spectra, study.tree),
        Table("spectra", "Eigenvalues", ("rung", "sign", "rank", "magnitude"), tuple(rows)),
    )


def _mismatch(study: Study) -> list[Block]:
    rows: list[tuple[Cell, ...]] = []
    parts = []
    for name, data in study.children("/spectrum").items():
        if not {"ekfac_eigenvalues", "kfac_eigenvalues"} <= set(data.data_vars):
            continue
        exact, product = pairs(data)
        rows += [(name, float(e), float(k)) for e, k in zip(exact, product, strict=True)]
        if exact.size:
            factor = float(np.median(np.maximum(product / exact, exact / product)))
            parts.append(f"block {isolated(name)} by a factor of {number(factor)}")
    if not rows:
        return [missing("Product eigenvalues beside exact ones are not in this result.")]
    finding = f"In the median a product eigenvalue is off in {joined(parts)}."
    return [
        Figure(
            "mismatch",
            f"K-FAC's product eigenvalues against exact ones. {finding}",
            f"Along the same Kronecker eigenvectors; above the line K-FAC overestimates. {finding}",
            partial(plot_mismatch, study.tree),
            Table("mismatch", "Paired eigenvalues", ("block", "EK-FAC", "K-FAC"), tuple(rows)),
        )
    ]


def _tables(study: Study, errors: xr.Dataset) -> list[Block]:
    blocks: list[Block] = []
    for name, target in (("value", "H"), ("value_against_ggn", "G")):
        if name not in errors:
            continue
        rungs = [r for r in study.rungs if r in labels(errors[name], "rung")]
        rows = tuple(
            (METRIC_LABELS.get(m, m), *(_cell(errors, name, m, r) for r in rungs))
            for m in labels(errors[name], "metric")
        )
        columns = ("metric", *(rung_label(r) for r in rungs))
        caption = f"Spectral error against {target}"
        blocks.append(Table(f"spectral-error-{target}", caption, columns, rows))
    return blocks


def _cell(errors: xr.Dataset, name: str, metric: str, rung: str) -> Cell:
    value = float(errors[name].sel(metric=metric, rung=rung))
    spread_name = name.replace("value", "standard_error")
    if spread_name in errors:
        spread = float(errors[spread_name].sel(metric=metric, rung=rung))
        if np.isfinite(spread) and spread > 0:
            return f"{number(value)} ± {number(spread, 1)}"
    return value
