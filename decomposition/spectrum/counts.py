"""Number of eigenvalues below μ, with what a quadrature knows of it.

A quadrature with nodes θ_1 < … < θ_m and weights w that is exact for polynomials of degree 2m − 1,
as Lanczos gives it, brackets the distribution function N of the measure it stands for
(Chebyshev, Markov and Stieltjes; Szegő 1939, Orthogonal Polynomials, section 3.41):

    Σ_{i<j} w_i ≤ N(θ_j −) ≤ N(θ_j +) ≤ Σ_{i≤j} w_i,

so that for θ_j < μ < θ_{j+1} N(μ) lies between Σ_{i<j} w_i and Σ_{i≤j+1} w_i. No smoothness is
asked for: counts have a jump at 0, where most eigenvalues lie, and their bounds are wide there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from decomposition.spectrum.measure import SpectralMeasure, Spectrum

ERRORS = 3.0
"""Standard errors over the probes by which brackets are widened."""


@dataclass(frozen=True)
class Counts:
    """Numbers of eigenvalues below some μ; the three agree where the spectrum is exact."""

    value: Float[np.ndarray, " m"]
    lower: Float[np.ndarray, " m"]
    upper: Float[np.ndarray, " m"]


def counts_below(spectrum: Spectrum, at: Float[np.ndarray, " m"]) -> Counts:
    """Number of eigenvalues < μ at every μ.

    Converged ends are counted one by one, and only the rest is bracketed. The bounds hold for the
    mean over all probes; that of the few at hand is allowed ``ERRORS`` standard errors. None lies
    below 0 where the curvature has no negative eigenvalue by what it is.
    """
    at = np.asarray(at, float)
    counts = _counts(spectrum, at)
    if not spectrum.definite:
        return counts
    return Counts(*(np.where(at > 0, x, 0.0) for x in (counts.value, counts.lower, counts.upper)))


def _counts(spectrum: Spectrum, at: Float[np.ndarray, " m"]) -> Counts:
    measure = spectrum.measure
    if measure.exact:
        running = np.concatenate([[0.0], np.cumsum(measure.weights[0])])
        value = running[np.searchsorted(measure.nodes[0], at, side="left")]
        return Counts(value, value, value)
    known = np.searchsorted(spectrum.ends.values, at, side="left").astype(float)
    rest = _without(measure, spectrum.ends.values)
    rows = [_bracket(n, w, at) for n, w in zip(rest.nodes, rest.weights, strict=True)]
    value, low, high = (np.stack(parts) for parts in zip(*rows, strict=True))
    spread = [ERRORS * x.std(0, ddof=1) / np.sqrt(len(x)) for x in (low, high)]
    lower = known + np.maximum(low.mean(0) - spread[0], 0.0)
    most = measure.size - len(spectrum.ends.values)
    upper = known + np.minimum(high.mean(0) + spread[1], most)
    return Counts(known + value.mean(0), lower, upper)


def _without(measure: SpectralMeasure, known: Float[np.ndarray, " k"]) -> SpectralMeasure:
    """The quadrature of the rest: the nodes that are no known eigenvalue of weight 1."""
    apart = [
        ~(np.isin(nodes, known) & (weights == 1.0))
        for nodes, weights in zip(measure.nodes, measure.weights, strict=True)
    ]
    nodes = np.stack([n[keep] for n, keep in zip(measure.nodes, apart, strict=True)])
    weights = np.stack([w[keep] for w, keep in zip(measure.weights, apart, strict=True)])
    return SpectralMeasure(nodes, weights, measure.method)


def _bracket(
    nodes: np.ndarray, weights: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Σ of the weights of nodes below μ, and the bounds of one probe."""
    met = weights > 0  # an exhausted Krylov space leaves nodes that stand for nothing
    nodes, weights = nodes[met], weights[met]
    running = np.concatenate([[0.0], np.cumsum(weights)])
    below = np.searchsorted(nodes, at, side="left")  # j nodes lie below μ
    lower = running[np.maximum(below - 1, 0)]
    upper = running[np.minimum(below + 1, len(weights))]
    return running[below], lower, upper
