"""Spectra as labelled tables: eigenvalues, magnitude by rank with its sign, both ends.

Dimensions: ``scope`` (``whole``, then the blocks), ``rung``, and ``index`` (ascending, from 0) or
``rank`` (by magnitude, from 1). NaN stands where a scope lacks a rung, and pads smaller scopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from decomposition.spectrum.measure import ENDS, Spectra, Spectrum


def by_rung(
    spectra: Spectra,
    tell: Callable[[Spectrum], Mapping[str, ArrayLike]],
    coords: Mapping[str, Sequence[object] | np.ndarray],
) -> xr.Dataset:
    """What is told of every spectrum, as variables over scope and rung.

    Args:
        spectra: scope → rung → spectrum.
        tell: spectrum → variable → numbers, of one shape for all spectra.
        coords: the dimensions of those numbers, outermost first, with their coordinates.
    """
    scopes, rungs = list(spectra), list(dict.fromkeys(r for row in spectra.values() for r in row))
    found: dict[str, np.ndarray] = {}
    for i, row in enumerate(spectra.values()):
        for rung, one in row.items():
            for name, numbers in tell(one).items():
                value = np.asarray(numbers, float)
                if name not in found:
                    found[name] = np.full((len(scopes), len(rungs), *value.shape), np.nan)
                found[name][i, rungs.index(rung)] = value
    inner = tuple(coords)
    return xr.Dataset(
        {n: (("scope", "rung", *inner[: v.ndim - 2]), v) for n, v in found.items()},
        {"scope": scopes, "rung": rungs, **{name: list(at) for name, at in coords.items()}},
    )


def eigenvalue_table(spectra: Spectra) -> xr.Dataset:
    """eigenvalues(scope, rung, index) ascending, size(scope), method(scope, rung).

    For an estimated spectrum the eigenvalues are the quantiles of its measure.
    """
    size = [next(iter(row.values())).measure.size for row in spectra.values()]
    most = max(size)

    def tell(one: Spectrum) -> dict[str, np.ndarray]:
        values = one.measure.eigenvalues()
        return {"eigenvalues": np.pad(values, (0, most - len(values)), constant_values=np.nan)}

    data = by_rung(spectra, tell, {"index": np.arange(most)})
    method = [
        [row[rung].measure.method if rung in row else "" for rung in data["rung"].values]
        for row in spectra.values()
    ]
    return data.assign(size=("scope", np.array(size)), method=(("scope", "rung"), np.array(method)))


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
    return xr.Dataset(
        {
            "magnitude": (dims, magnitude),
            "sign": (dims, np.nan_to_num(sign).astype(np.int8)),
            "cumulative": (dims, cumulative),
        },
        {
            "scope": table["scope"],
            "rung": table["rung"],
            "rank": np.arange(1, values.shape[-1] + 1),
        },
    )


def ends_table(spectra: Spectra, count: int = ENDS) -> xr.Dataset:
    """eigenvalue and residual(scope, rung, end, rank), outermost first; NaN where none is known."""

    def tell(one: Spectrum) -> dict[str, np.ndarray]:
        values, residuals = one.ends.values, one.ends.residuals
        half = len(values) // 2 if one.exact else int((values < 0).sum())
        inwards = np.arange(half), np.arange(len(values) - 1, half - 1, -1)
        found = np.full((2, 2, count), np.nan)
        for end, order in enumerate(inwards):
            kept = order[:count]
            found[:, end, : len(kept)] = values[kept], residuals[kept]
        return {"eigenvalue": found[0], "residual": found[1]}

    return by_rung(spectra, tell, {"end": ["lowest", "highest"], "rank": np.arange(1, count + 1)})
