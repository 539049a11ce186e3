"""Spectra of operators too large to form: the ends by Lanczos, the rest by quadrature.

The eigenpairs at both ends that a Lanczos run with full reorthogonalisation has converged count
with weight 1. Random vectors orthogonal to
them are uniform on the sphere of the complement, so that (P − k) Σ_j w_j f(θ_j) of each is an
unbiased estimate of the rest of tr f(C), up to the error of the quadrature, which vanishes
exponentially in the number of steps for smooth f (Ubaru, Chen & Saad 2017, doi
10.1137/16M1104974). Taking the ends out first removes most of the variance, as in Hutch++
(Meyer et al. 2021, arXiv 2010.09649).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DecompositionError
from decomposition.linalg import from_numpy, matmul, to_numpy
from decomposition.spectrum.lanczos import lanczos
from decomposition.spectrum.measure import SpectralMeasure
from decomposition.spectrum.operators import Symmetric


@dataclass(frozen=True)
class Estimation:
    """How much work an estimate may do; all of it is seeded.

    Raises:
        DecompositionError: a count is too small; the message names it.
    """

    ends: int = 20
    """Eigenpairs to be found at each end of the spectrum."""
    probes: int = 8
    """Random vectors; the error bar is their spread."""
    steps: int = 80
    """Lanczos steps of each: the number of quadrature nodes."""
    seed: int = 0
    """Seed of start vector and probes."""
    tolerance: float = 1e-9
    """Residual at which an end counts as found, relative to the largest eigenvalue."""

    def __post_init__(self) -> None:
        """Check every count once."""
        for name, low in (("ends", 0), ("probes", 2), ("steps", 2), ("seed", 0)):
            if getattr(self, name) < low:
                raise DecompositionError(
                    f"{name} of an estimate must be >= {low}, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class Ends:
    """Converged eigenpairs at both ends of a spectrum."""

    values: Float[np.ndarray, " k"]
    """Ascending."""
    vectors: Float[np.ndarray, "P k"]
    """Orthonormal columns."""
    residuals: Float[np.ndarray, " k"]
    """‖C v − μ v‖."""


def ends(operator: Symmetric, plan: Estimation | None = None) -> Ends:
    """Up to ``plan.ends`` eigenpairs at each end: those that one Lanczos run has converged.

    Full reorthogonalisation, so no eigenvalue appears twice; a repeated one is found once, and
    its copies stay in the complement. Clusters at an end (the null space of G) do not converge
    and are left to the quadrature.
    """
    plan = plan or Estimation()
    size = operator.size
    steps = min(size, max(4 * plan.ends, plan.steps))
    generator = np.random.default_rng((plan.seed, 0))
    basis = np.empty((steps, size))
    images = np.empty((steps, size))
    current = generator.standard_normal(size)
    current /= np.linalg.norm(current)
    for step in range(steps):
        basis[step] = current
        images[step] = _product(operator, current)
        current = images[step]
        for _ in range(2):  # twice is enough (Parlett)
            current = current - (basis[: step + 1] @ current) @ basis[: step + 1]
        norm = np.linalg.norm(current)
        if norm <= 1e-12 * np.abs(images[: step + 1]).max():  # the Krylov space is exhausted
            basis, images = basis[: step + 1], images[: step + 1]
            break
        current = current / norm
    projected = basis @ images.T
    values, rotation = np.linalg.eigh(0.5 * (projected + projected.T))
    vectors = basis.T @ rotation
    residuals = np.linalg.norm(images.T @ rotation - vectors * values, axis=0)
    converged = np.flatnonzero(residuals <= plan.tolerance * np.abs(values).max())
    low = [i for i in converged if values[i] < 0][: plan.ends]
    high = [i for i in converged if values[i] > 0][-plan.ends :] if plan.ends else []
    kept = [*low, *high]
    return Ends(values[kept], vectors[:, kept], residuals[kept])


def estimated_measure(operator: Symmetric, plan: Estimation | None = None) -> SpectralMeasure:
    """The measure of an operator's spectrum from its products alone."""
    plan = plan or Estimation()
    found = ends(operator, plan)
    vectors = from_numpy(np.ascontiguousarray(found.vectors), operator.device)
    rest = operator.size - vectors.shape[1]
    if rest == 0:
        return SpectralMeasure(np.sort(found.values)[None], np.ones((1, operator.size)), "dense")
    generator = np.random.default_rng((plan.seed, 1))
    draws = generator.standard_normal((operator.size, plan.probes))
    start = from_numpy(draws, operator.device)
    start = _outside(vectors, start)
    start = start / torch.linalg.vector_norm(start, dim=0)

    def deflated(v: Tensor) -> Tensor:
        return _outside(vectors, operator.matvec(v))

    ritz = lanczos(deflated, start, min(plan.steps, rest))
    k = plan.probes
    nodes = np.concatenate([np.tile(found.values, (k, 1)), to_numpy(ritz.values)], 1)
    weights = np.concatenate([np.ones((k, len(found.values))), rest * to_numpy(ritz.weights)], 1)
    order = np.argsort(nodes, axis=1, kind="stable")
    return SpectralMeasure(
        np.take_along_axis(nodes, order, 1), np.take_along_axis(weights, order, 1), "lanczos"
    )


def _product(operator: Symmetric, v: np.ndarray) -> np.ndarray:
    column = from_numpy(v.reshape(-1, 1).copy(), operator.device)
    return to_numpy(operator.matvec(column)[:, 0])


def _outside(vectors: Tensor, v: Tensor) -> Tensor:
    return v - matmul(vectors, matmul(vectors.T, v)) if vectors.shape[1] else v
