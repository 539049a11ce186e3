"""Spectra as labelled tables: eigenvalues, magnitude by rank with its sign, cumulative curvature.

Dimensions: ``scope`` (``whole``, then the blocks), ``rung``, and ``index`` (ascending, from 0) or
``rank`` (by magnitude, from 1). Scopes are of different sizes: NaN pads.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from decomposition.spectrum.measure import Measures


def eigenvalue_table(measures: Measures) -> xr.Dataset:
    """eigenvalues(scope, rung, index) ascending, size(scope), method(scope, rung).

    For an estimated spectrum the eigenvalues are the quantiles of its measure.
    """
    scopes, rungs = list(measures), _rungs(measures)
    size = np.array([next(iter(row.values())).size for row in measures.values()])
    values = np.full((len(scopes), len(rungs), int(size.max())), np.nan)
    method = np.full((len(scopes), len(rungs)), "", dtype=object)
    for i, row in enumerate(measures.values()):
        for rung, measure in row.items():
            j = rungs.index(rung)
            values[i, j, : size[i]] = measure.eigenvalues()
            method[i, j] = measure.method
    return xr.Dataset(
        {
            "eigenvalues": (("scope", "rung", "index"), values),
            "size": ("scope", size),
            "method": (("scope", "rung"), method.astype(str)),
        },
        {"scope": scopes, "rung": rungs, "index": np.arange(values.shape[2])},
    )


def by_rank(table: xr.Dataset) -> xr.Dataset:
    """magnitude(scope, rung, rank) descending, sign(scope, rung, rank), cumulative(…).

    ``cumulative`` is Σ_{i ≤ r} |μ_i| / Σ_i |μ_i|, the share of the curvature that the r
    eigenvalues of largest magnitude hold; NaN where all are zero. ``sign`` is −1, 0 or 1.
    """
    values = table["eigenvalues"].values
    magnitude = np.abs(values)
    order = np.argsort(-magnitude, axis=-1, kind="stable")  # NaN sorts last
    magnitude = np.take_along_axis(magnitude, order, -1)
    sign = np.sign(np.take_along_axis(values, order, -1))
    running = np.nancumsum(magnitude, axis=-1)
    total = running[..., -1:]
    with np.errstate(invalid="ignore"):
        cumulative = np.where(np.isnan(magnitude) | (total == 0), np.nan, running / total)
    dims = ("scope", "rung", "rank")
    coords = {"scope": table["scope"], "rung": table["rung"]}
    return xr.Dataset(
        {
            "magnitude": (dims, magnitude),
            "sign": (dims, np.nan_to_num(sign).astype(np.int8)),
            "cumulative": (dims, cumulative),
        },
        {**coords, "rank": np.arange(1, values.shape[-1] + 1)},
    )


def _rungs(measures: Measures) -> list[str]:
    seen: dict[str, None] = {}
    for row in measures.values():
        seen |= dict.fromkeys(row)
    return list(seen)
