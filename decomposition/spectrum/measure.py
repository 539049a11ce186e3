"""A spectrum as a measure on the real line, whether it is known exactly or estimated.

Every summary of a spectrum is a functional of dN(μ) = Σ_i w_i δ(μ − θ_i). A dense rung gives its
P eigenvalues with weight 1; the dual Gram matrix gives the non-zero ones and a node at 0; Lanczos
quadrature gives, for every probe, a few nodes whose weights sum to P. What is computed from the
measure is therefore written once, and the spread over probes is its error bar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DecompositionError
from decomposition.linalg import to_numpy

WHOLE = "whole"
"""Name of the scope that is the whole matrix; every other scope is a block."""

Statistic = Callable[[Float[np.ndarray, " m"], Float[np.ndarray, " m"]], float]


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
    method: str = "dense"
    """dense, structured, dual, result or lanczos."""

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

    def statistic(self, function: Statistic) -> tuple[float, float]:
        """A statistic of (nodes, weights) of the mean measure, and its standard error.

        The error is the spread of the statistic over single probes, divided by √k: 0 where the
        spectrum is exact, NaN for one probe.
        """
        value = function(*self.pooled())
        if self.exact:
            return value, 0.0
        if len(self.nodes) < 2:
            return value, np.nan
        single = [function(n, w) for n, w in zip(self.nodes, self.weights, strict=True)]
        return value, float(np.std(single, ddof=1) / np.sqrt(len(single)))

    def integrate(
        self, function: Callable[[Float[np.ndarray, " m"]], Float[np.ndarray, "s m"]]
    ) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
        """Σ_i f_s(μ_i) = tr f_s(C) for s functions at once, and the standard errors."""
        rows = [function(n) @ w for n, w in zip(self.nodes, self.weights, strict=True)]
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


Measures = Mapping[str, Mapping[str, SpectralMeasure]]
"""Scope (``whole`` or a block) → rung → measure."""


def exact_measure(
    values: Tensor | Float[np.ndarray, " P"], method: str = "dense"
) -> SpectralMeasure:
    """The measure of known eigenvalues, weight 1 each."""
    array = to_numpy(values) if isinstance(values, torch.Tensor) else np.asarray(values, float)
    nodes = np.sort(array)[None]
    return SpectralMeasure(nodes, np.ones_like(nodes), method)


def union(parts: Sequence[SpectralMeasure]) -> SpectralMeasure:
    """The measure of a block-diagonal matrix from those of its blocks.

    Probes of different blocks are independent, so that row i of each may be joined to one probe
    of the whole; an exact block repeats its row.

    Raises:
        DecompositionError: two estimated blocks have different numbers of probes.
    """
    counts = {len(part.nodes) for part in parts if not part.exact} or {1}
    if len(counts) > 1:
        raise DecompositionError(f"blocks have different numbers of probes: {sorted(counts)}")
    (count,) = counts
    nodes = np.concatenate([np.broadcast_to(p.nodes, (count, p.nodes.shape[1])) for p in parts], 1)
    weights = np.concatenate(
        [np.broadcast_to(p.weights, (count, p.weights.shape[1])) for p in parts], 1
    )
    order = np.argsort(nodes, axis=1, kind="stable")
    method = "lanczos" if any(not part.exact for part in parts) else parts[0].method
    return SpectralMeasure(
        np.take_along_axis(nodes, order, 1), np.take_along_axis(weights, order, 1), method
    )
