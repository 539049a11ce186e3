"""Spectral density on a symmetric-logarithmic axis.

Eigenvalues of a trained network span ten decades and both signs. With the coordinate
s(μ) = asinh(μ / 2t) / ln 10, which is log₁₀|μ|/t away from zero and linear within ±t, the density
is the kernel sum

    ρ(s) = Σ_i K_h(s − s(μ_i)),   K_h Gaussian of width h decades,

eigenvalues per decade. Each ρ(s) is tr f(C) of a smooth f, so that quadrature estimates it and
the dense path computes it by one formula (Ghorbani et al. 2019, arXiv 1901.10159, on a linear
axis).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.errors import DecompositionError
from decomposition.spectrum.measure import Measures
from decomposition.spectrum.tables import eigenvalue_table

WIDTH, POINTS, DECADES = 0.15, 320, 6.0


def symlog(mu: Float[np.ndarray, "*n"], threshold: float) -> Float[np.ndarray, "*n"]:
    """s(μ) = asinh(μ / 2t) / ln 10: decades above the threshold t, with the sign of μ."""
    return np.arcsinh(mu / (2.0 * threshold)) / np.log(10.0)


def inverse_symlog(s: Float[np.ndarray, "*n"], threshold: float) -> Float[np.ndarray, "*n"]:
    """μ(s) = 2t sinh(s ln 10)."""
    return 2.0 * threshold * np.sinh(s * np.log(10.0))


def density(
    measures: Measures,
    threshold: float | None = None,
    width: float = WIDTH,
    points: int = POINTS,
) -> xr.Dataset:
    """density(scope, rung, position) in eigenvalues per decade, and its standard_error.

    Args:
        measures: what to draw.
        threshold: t, below which the axis is linear; default 10⁻⁶ of the largest |μ|.
        width: h, kernel width in decades.
        points: positions on the axis.

    Returns:
        Coordinates ``position`` (s) and ``eigenvalue`` (μ at it); attributes threshold and width.

    Raises:
        DecompositionError: threshold or width is not positive, or every eigenvalue is zero.
    """
    table = eigenvalue_table(measures)
    everything = np.concatenate([m.nodes.ravel() for r in measures.values() for m in r.values()])
    largest = float(np.abs(everything).max())
    if largest == 0:
        raise DecompositionError("every eigenvalue is zero: there is no density to draw")
    t = 10.0**-DECADES * largest if threshold is None else float(threshold)
    if not (t > 0 and width > 0):
        raise DecompositionError(f"threshold and width must be > 0, got {t} and {width}")
    margin = 4.0 * width
    low = min(float(symlog(everything.min(), t)), 0.0) - margin
    high = max(float(symlog(everything.max(), t)), 0.0) + margin
    position = np.linspace(low, high, points)
    shape = (table.sizes["scope"], table.sizes["rung"], points)
    value, error = np.full(shape, np.nan), np.full(shape, np.nan)
    rungs = [str(r) for r in table["rung"].values]

    def kernels(nodes: np.ndarray) -> np.ndarray:
        z = (position[:, None] - symlog(nodes, t)) / width
        return np.exp(-0.5 * z * z) / (width * np.sqrt(2.0 * np.pi))

    for i, row in enumerate(measures.values()):
        for rung, measure in row.items():
            value[i, rungs.index(rung)], error[i, rungs.index(rung)] = measure.integrate(kernels)
    dims = ("scope", "rung", "position")
    return xr.Dataset(
        {"density": (dims, value), "standard_error": (dims, error)},
        {
            "scope": table["scope"],
            "rung": table["rung"],
            "position": position,
            "eigenvalue": ("position", inverse_symlog(position, t)),
        },
        {"threshold": t, "width": width},
    )
