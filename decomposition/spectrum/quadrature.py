"""Spectra of rungs known by their products: the ends by Lanczos, the rest by quadrature.

The eigenpairs at both ends that a Lanczos run with full reorthogonalisation has converged count
with weight 1. Random vectors orthogonal to them are uniform on the sphere of the complement, so
that (P − k) Σ_j w_j f(θ_j) of each is an unbiased estimate of the rest of tr f(C), up to the error
of the quadrature, which vanishes exponentially in the number of steps for smooth f (Ubaru, Chen &
Saad 2017, doi 10.1137/16M1104974). Taking the ends out first removes most of the variance, as in
Hutch++ (Meyer et al. 2021, arXiv 2010.09649).

For f with a kink at 0, such as |μ|, or narrower than the distance of nodes, the quadrature errs to
either side as its nodes move past, by an amount that falls slowly with the number of steps. No
spread over probes shows that error: the quadratures of the last half of the steps, which one run
gives for nothing, do. A value is their mean, its error half their range and the spread over probes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.checks import Rule, check_fields, number, seed, whole
from decomposition.curvature.estimate import Estimate, Symmetric
from decomposition.curvature.krylov import KrylovSpaces, krylov_spaces
from decomposition.errors import DecompositionError
from decomposition.linalg import from_numpy, matmul, to_numpy
from decomposition.spectrum.measure import Ends, SpectralMeasure, Spectrum, exact_spectrum

OWN_TOLERANCE = 0.03
"""Residual at which an end counts as found whatever the plan, relative to itself: its Rayleigh
quotient is then off by the square of that."""


RULES: dict[str, Rule] = {
    "ends": whole(),
    "probes": whole(2),
    "steps": whole(2),
    "seed": seed,
    "tolerance": number(0, above=True),
    "end_steps": whole(),
}
"""What each field of an Estimation may be."""


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
    end_steps: int = 0
    """Lanczos steps towards the ends; 0: four for each end, and no fewer than ``steps``."""

    def __post_init__(self) -> None:
        """Check every count once."""
        check_fields(self, RULES, DecompositionError, "the {} of an estimate")


def ends(operator: Symmetric, plan: Estimation | None = None) -> Ends:
    """Up to ``plan.ends`` eigenpairs at each end: those that one Lanczos run has converged.

    Full reorthogonalisation, so no eigenvalue appears twice; a repeated one is found once, and
    its copies stay in the complement. Clusters at an end (the null space of G) do not converge
    and are left to the quadrature.
    """
    plan = plan or Estimation()
    size = operator.size
    steps = min(size, plan.end_steps or max(4 * plan.ends, plan.steps))
    generator = np.random.default_rng((plan.seed, 0))
    start = from_numpy(generator.standard_normal(size)[:, None], operator.device)
    spaces = krylov_spaces(operator.matvec, start, steps)
    ritz = spaces.ritz()
    values, residuals = to_numpy(ritz.values[0]), to_numpy(ritz.residuals[0])
    allowed = np.minimum(plan.tolerance * np.abs(values).max(), OWN_TOLERANCE * np.abs(values))
    converged = np.flatnonzero(residuals <= allowed)
    low = [i for i in converged if values[i] < 0][: plan.ends]
    high = [i for i in converged if values[i] > 0][-plan.ends :] if plan.ends else []
    kept = [*low, *high]
    rotation = ritz.rotation[0][:, torch.tensor(kept, dtype=torch.long)]
    vectors = to_numpy(matmul(spaces.basis[0].T, rotation))
    lowest, highest = (Estimate(float(values[i]), float(residuals[i])) for i in (0, -1))
    return Ends(values[kept], vectors, residuals[kept], lowest, highest)


def estimated_spectrum(
    operator: Symmetric, plan: Estimation | None = None, definite: bool = False
) -> Spectrum:
    """Ends and measure of an operator from ``end_steps`` + ``probes`` · ``steps`` products."""
    plan = plan or Estimation()
    found = ends(operator, plan)
    vectors = from_numpy(np.ascontiguousarray(found.vectors), operator.device)
    rest = operator.size - vectors.shape[1]
    if rest == 0:
        return exact_spectrum(found.values, plan.ends, definite)
    generator = np.random.default_rng((plan.seed, 1))
    draws = generator.standard_normal((operator.size, plan.probes))
    start = from_numpy(draws, operator.device)
    start = _outside(vectors, start)
    start = start / torch.linalg.vector_norm(start, dim=0)

    def deflated(v: Tensor) -> Tensor:
        return _outside(vectors, operator.matvec(v))

    spaces = krylov_spaces(deflated, start, min(plan.steps, rest))
    last = spaces.steps
    first = last if not bool(spaces.beta[:, -1].any()) else -(-last // 2)
    *earlier, measure = (_after(m, spaces, found.values, rest) for m in range(first, last + 1))
    return Spectrum(measure, found, tuple(earlier), definite)


def _after(
    steps: int, spaces: KrylovSpaces, known: Float[np.ndarray, " k"], rest: int
) -> SpectralMeasure:
    """Known eigenvalues with weight 1, and the quadrature of the rest after so many steps."""
    ritz = spaces.ritz(steps)
    probes = len(ritz.values)
    nodes = np.concatenate([np.tile(known, (probes, 1)), to_numpy(ritz.values)], 1)
    weights = [np.ones((probes, len(known))), rest * to_numpy(ritz.weights)]
    order = np.argsort(nodes, axis=1, kind="stable")
    return SpectralMeasure(
        np.take_along_axis(nodes, order, 1),
        np.take_along_axis(np.concatenate(weights, 1), order, 1),
        "lanczos",
    )


def _outside(vectors: Tensor, v: Tensor) -> Tensor:
    return v - matmul(vectors, matmul(vectors.T, v)) if vectors.shape[1] else v
