"""A spectrum as a measure on the real line, whether it is known exactly or estimated.

Every summary of a spectrum is a functional of dN(μ) = Σ_i w_i δ(μ − θ_i). Where the form of a rung
gives its P eigenvalues (a matrix, Kronecker factors, a Gram matrix with zeros added) each has
weight 1 and every error is 0; Lanczos quadrature (``quadrature``) gives, for every probe, a few
nodes whose weights sum to P. What is computed from the measure is therefore written once, and the
spread over probes, with what the last steps of the quadrature still changed, is its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.estimate import Estimate
from decomposition.errors import DecompositionError
from decomposition.linalg import to_numpy

WHOLE = "whole"
"""Name of the scope that is the whole matrix; every other scope is a block."""

ROUNDING = 1e-12
"""Fraction of the largest |μ| below which an eigenvalue counts as zero."""

Statistic = Callable[[Float[np.ndarray, " m"], Float[np.ndarray, " m"]], float]
"""(nodes, weights) → a number."""
Functions = Callable[[Float[np.ndarray, " m"]], Float[np.ndarray, "s m"]]
"""Nodes → s functions of each."""


@dataclass(frozen=True)
class SpectralMeasure:
    """Nodes and weights of k probes; k = 1 for an exact spectrum.

    Raises:
        DecompositionError: shapes disagree, a weight is negative, or a value is not finite.
    """

    nodes: Float[np.ndarray, "k m"]
    """θ, ascending for every probe."""
    weights: Float[np.ndarray, "k m"]
    """Number of eigenvalues that each node stands for; every row sums to P."""
    method: str = "exact"
    """exact, result or lanczos."""

    def __post_init__(self) -> None:
        """Check the arrays once."""
        if self.nodes.ndim != 2 or self.nodes.shape != self.weights.shape or not self.nodes.size:
            raise DecompositionError(
                "a spectral measure has nodes and weights of one shape (probes, nodes), got "
                f"{self.nodes.shape} and {self.weights.shape}"
            )
        if not (np.isfinite(self.nodes).all() and np.isfinite(self.weights).all()):
            raise DecompositionError("a spectral measure has a node or weight that is not finite")
        if self.weights.min() < -1e-9:
            raise DecompositionError(f"a weight is negative: {self.weights.min():.3g}")

    @property
    def size(self) -> int:
        """P."""
        return round(float(self.weights[0].sum()))

    @property
    def exact(self) -> bool:
        """Whether the nodes are the eigenvalues."""
        return self.method != "lanczos"

    def eigenvalues(self) -> Float[np.ndarray, " P"]:
        """All eigenvalues, ascending; for an estimate, the quantiles of the mean measure."""
        nodes, weights = self.pooled()
        middles = np.arange(self.size) + 0.5
        place = np.searchsorted(np.cumsum(weights), middles * (1 - 1e-12), side="left")
        return nodes[np.minimum(place, len(nodes) - 1)]

    def statistic(self, function: Statistic) -> Estimate:
        """A statistic of (nodes, weights) of the mean measure, and its standard error.

        The error is the spread of the statistic over single probes, divided by √k: 0 where the
        spectrum is exact, NaN for one probe.
        """
        value = function(*self.pooled())
        if self.exact:
            return Estimate(value)
        if len(self.nodes) < 2:
            return Estimate(value, np.nan)
        single = [function(n, w) for n, w in zip(self.nodes, self.weights, strict=True)]
        return Estimate(value, float(np.std(single, ddof=1) / np.sqrt(len(single))))

    def integrate(
        self, functions: Functions
    ) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
        """Σ_i f_s(μ_i) = tr f_s(C) for s functions at once, and the standard errors."""
        rows = [functions(n) @ w for n, w in zip(self.nodes, self.weights, strict=True)]
        samples = np.stack(rows)
        if self.exact:
            return samples[0], np.zeros_like(samples[0])
        if len(samples) < 2:
            return samples[0], np.full_like(samples[0], np.nan)
        return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(len(samples))

    def pooled(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Nodes, ascending, and weights of the mean measure over probes."""
        nodes = self.nodes.ravel()
        order = np.argsort(nodes, kind="stable")
        return nodes[order], self.weights.ravel()[order] / len(self.nodes)


@dataclass(frozen=True)
class Ends:
    """Converged eigenpairs at both ends of a spectrum."""

    values: Float[np.ndarray, " k"]
    """Ascending."""
    vectors: Float[np.ndarray, "P k"]
    """Orthonormal columns; none where the eigenvalues are known without them."""
    residuals: Float[np.ndarray, " k"]
    """‖C v − μ v‖; 0 where the eigenvalue is exact."""
    lowest: Estimate
    """The lowest eigenvalue or Ritz value, converged or not; its error is the residual, within
    which there is an eigenvalue. No eigenvalue below it is excluded."""
    highest: Estimate
    """The highest one, likewise."""


@dataclass(frozen=True)
class Spectrum:
    """What is known of a spectrum, exactly or by quadrature."""

    measure: SpectralMeasure
    ends: Ends
    earlier: tuple[SpectralMeasure, ...] = ()
    """With fewer steps, down to half of them; none where the measure is exact."""
    definite: bool = False
    """Whether the curvature has no negative eigenvalue, by what it is."""

    @property
    def exact(self) -> bool:
        """Whether every eigenvalue is known."""
        return self.measure.exact

    @property
    def norm(self) -> float:
        """‖C‖₂ = max |μ|."""
        return max(abs(self.ends.lowest), abs(self.ends.highest))

    def statistic(self, function: Statistic) -> Estimate:
        """A statistic of (nodes, weights), with the errors of probes and quadrature.

        The value is the mean over the quadratures of the last half of the steps; half their range
        is the error that the spread over probes does not show.
        """
        found = self.measure.statistic(function)
        values = [found, *(one.statistic(function) for one in self.earlier)]
        error = math.hypot(found.error, 0.5 * float(np.ptp(values)))
        return Estimate(float(np.mean(values)), error)

    def integrate(
        self, functions: Functions
    ) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
        """tr f_s(C) for s functions at once, and their errors, likewise."""
        value, spread = self.measure.integrate(functions)
        values = np.stack([value, *(one.integrate(functions)[0] for one in self.earlier)])
        return values.mean(0), np.hypot(spread, 0.5 * np.ptp(values, axis=0))


Spectra = Mapping[str, Mapping[str, Spectrum]]
"""Scope (``whole`` or a block) → rung → spectrum."""


def exact_measure(
    values: Tensor | Float[np.ndarray, " P"], method: str = "exact"
) -> SpectralMeasure:
    """The measure of known eigenvalues, weight 1 each."""
    array = to_numpy(values) if isinstance(values, Tensor) else np.asarray(values, float)
    nodes = np.sort(array)[None]
    return SpectralMeasure(nodes, np.ones_like(nodes), method)


ENDS = 10
"""Eigenvalues told at each end."""


def exact_spectrum(
    values: Tensor | Float[np.ndarray, " P"],
    count: int = ENDS,
    definite: bool = False,
    method: str = "exact",
) -> Spectrum:
    """Of known eigenvalues, without eigenvectors; what is zero up to rounding is zero.

    Args:
        values: all eigenvalues, in any order.
        count: how many are told at each end.
        definite: whether none is negative, by what the curvature is.
        method: ``exact``, or ``result`` of eigenvalues that were read from one.
    """
    array = to_numpy(values) if isinstance(values, Tensor) else np.asarray(values, float)
    array = np.where(np.abs(array) <= ROUNDING * np.abs(array).max(initial=0.0), 0.0, array)
    measure = exact_measure(array, method)
    nodes = measure.nodes[0]
    count = min(count, len(nodes) // 2)
    kept = np.concatenate([nodes[:count], nodes[len(nodes) - count :]])
    extremes = Estimate(float(nodes[0])), Estimate(float(nodes[-1]))
    ends = Ends(kept, np.empty((len(nodes), 0)), np.zeros_like(kept), *extremes)
    return Spectrum(measure, ends, definite=definite)


def union(parts: Sequence[Spectrum]) -> Spectrum:
    """The spectrum of a block-diagonal matrix from those of its blocks.

    Probes of different blocks are independent, so that row i of each may be joined to one probe
    of the whole; an exact block repeats its row.

    Raises:
        DecompositionError: two estimated blocks have different numbers of probes.
    """
    measures = [part.measure for part in parts]
    definite = all(part.definite for part in parts)
    if all(part.exact for part in parts):
        return exact_spectrum(np.concatenate([one.nodes[0] for one in measures]), definite=definite)
    counts = {len(one.nodes) for one in measures if not one.exact}
    if len(counts) > 1:
        raise DecompositionError(f"blocks have different numbers of probes: {sorted(counts)}")
    (count,) = counts
    nodes = np.concatenate(
        [np.broadcast_to(m.nodes, (count, m.nodes.shape[1])) for m in measures], 1
    )
    weights = np.concatenate(
        [np.broadcast_to(m.weights, (count, m.weights.shape[1])) for m in measures], 1
    )
    order = np.argsort(nodes, axis=1, kind="stable")
    measure = SpectralMeasure(
        np.take_along_axis(nodes, order, 1),
        np.take_along_axis(weights, order, 1),
        "lanczos",
    )
    return Spectrum(measure, _joined_ends([part.ends for part in parts]), definite=definite)


def _joined_ends(parts: Sequence[Ends]) -> Ends:
    values, residuals = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "residuals")
    )
    order = np.argsort(values, kind="stable")
    return Ends(
        values[order],
        np.empty((sum(len(part.vectors) for part in parts), 0)),
        residuals[order],
        min(part.lowest for part in parts),
        max(part.highest for part in parts),
    )
