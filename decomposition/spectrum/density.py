"""Spectral density on a symmetric-logarithmic axis.

Eigenvalues of a trained network span ten decades and both signs. With the coordinate
s(μ) = asinh(μ / 2t) / ln 10, which is log₁₀|μ|/t away from zero and linear within ±t, the density
is the kernel sum

    ρ(s) = Σ_i K_h(s − s(μ_i)),   K_h Gaussian of width h decades,

eigenvalues per decade. Each ρ(s) is tr f(C) of a smooth f, so that one formula serves known
eigenvalues and quadratures (Ghorbani et al. 2019, arXiv 1901.10159, on a linear axis).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.errors import DecompositionError
from decomposition.spectrum.counts import counts_below
from decomposition.spectrum.measure import Spectra, SpectralMeasure, Spectrum
from decomposition.spectrum.tables import by_rung

WIDTH, WIDE = 0.15, 0.3
"""Widths of the kernel in decades: where all spectra are exact, and where one is a quadrature of
few nodes, which tells no more."""
POINTS, DECADES = 320, 6.0
NODES = 20_000
"""Known eigenvalues up to which each gets a kernel of its own."""


def symlog(mu: Float[np.ndarray, "*n"], threshold: float) -> Float[np.ndarray, "*n"]:
    """s(μ) = asinh(μ / 2t) / ln 10: decades above the threshold t, with the sign of μ."""
    return np.arcsinh(mu / (2.0 * threshold)) / np.log(10.0)


def inverse_symlog(s: Float[np.ndarray, "*n"], threshold: float) -> Float[np.ndarray, "*n"]:
    """μ(s) = 2t sinh(s ln 10)."""
    return 2.0 * threshold * np.sinh(s * np.log(10.0))


def density(
    spectra: Spectra,
    threshold: float | None = None,
    width: float | None = None,
    points: int = POINTS,
) -> xr.Dataset:
    """Eigenvalues per decade and counts below μ on a common axis of μ.

    Args:
        spectra: what to draw.
        threshold: t, below which the axis is linear; default 10⁻⁶ of the largest |μ|.
        width: h, kernel width in decades; default by what is known.
        points: positions on the axis.

    Returns:
        density(scope, rung, position) with standard_error, NaN nearer to zero than the innermost
        nodes of a quadrature (what lies there, it counts but does not tell apart); count with the
        bounds count_lower and count_upper; estimated(scope, rung), 0 or 1. Coordinates
        ``position`` (s) and ``eigenvalue`` (μ at it); attributes threshold and width.

    Raises:
        DecompositionError: threshold or width is not positive, or every eigenvalue is zero.
    """
    every = [one for row in spectra.values() for one in row.values()]
    nodes = np.concatenate([one.measure.nodes.ravel() for one in every])
    largest = float(np.abs(nodes).max())
    if largest == 0:
        raise DecompositionError("every eigenvalue is zero: there is no density to draw")
    t = 10.0**-DECADES * largest if threshold is None else float(threshold)
    h = width if width is not None else WIDTH if all(one.exact for one in every) else WIDE
    if not (t > 0 and h > 0):
        raise DecompositionError(f"threshold and width must be > 0, got {t} and {h}")
    low = min(float(symlog(nodes.min(), t)), 0.0) - 4.0 * h
    high = max(float(symlog(nodes.max(), t)), 0.0) + 4.0 * h
    position = np.linspace(low, high, points)
    mu = inverse_symlog(position, t)

    def kernels(nodes: np.ndarray) -> np.ndarray:
        z = (position[:, None] - symlog(nodes, t)) / h
        return np.exp(-0.5 * z * z) / (h * np.sqrt(2.0 * np.pi))

    def tell(one: Spectrum) -> dict[str, np.ndarray | float]:
        if one.exact:
            value, error = thinned(one.measure, h).integrate(kernels)
        else:
            value, error = one.integrate(kernels)
            inner = _unresolved(one, t, h)
            hidden = (position > inner[0]) & (position < inner[1])
            value, error = (np.where(hidden, np.nan, x) for x in (value, error))
        counts = counts_below(one, mu)
        return {
            "density": value,
            "standard_error": error,
            "count": counts.value,
            "count_lower": counts.lower,
            "count_upper": counts.upper,
            "estimated": float(not one.exact),
        }

    data = by_rung(spectra, tell, {"position": position})
    data = data.assign_coords(eigenvalue=("position", mu))
    return data.assign_attrs(threshold=t, width=h)


def _unresolved(one: Spectrum, threshold: float, width: float) -> tuple[float, float]:
    """Positions on either side of zero between which the quadratures have no nodes, in the median
    over probes and steps.

    Where all nodes lie on one side, zero itself is smeared by the kernel over the other.
    """
    reach = []
    for side in (-1.0, 1.0):
        innermost = []
        for measure in (one.measure, *one.earlier):
            for nodes, weights in zip(side * measure.nodes, measure.weights, strict=True):
                innermost += [n[n > 0].min() for n in (nodes[weights > 0],) if (n > 0).any()]
        met = float(symlog(np.median(innermost), threshold)) if innermost else 0.0
        reach.append(side * max(met, 4.0 * width))
    return reach[0], reach[1]


def thinned(measure: SpectralMeasure, width: float) -> SpectralMeasure:
    """Many known eigenvalues as fewer nodes, none moved by more than a hundredth of the kernel.

    A density of P = 10⁶ eigenvalues would take a kernel of each at every position.
    """
    nodes = measure.nodes[0]
    if len(nodes) <= NODES:
        return measure
    threshold = 10.0**-DECADES * float(np.abs(nodes).max()) / 10
    cells = np.round(symlog(nodes, threshold) / (width / 100)) * (width / 100)
    kept, count = np.unique(cells, return_counts=True)
    return SpectralMeasure(
        inverse_symlog(kept, threshold)[None], count.astype(float)[None], measure.method
    )
