"""Lanczos with full reorthogonalisation for several start vectors at once, and its quadrature.

Stochastic Lanczos quadrature estimates tr f(C) = Σ_i f(μ_i) as P · mean over random unit probes
z of Σ_k w_k f(θ_k), with Ritz values θ and weights w the squared first components of the
eigenvectors of the tridiagonal matrix (Ubaru, Chen & Saad 2017, doi 10.1137/16M1104974).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from decomposition.curvature.krylov import Matvec, krylov_spaces, tridiagonal
from decomposition.device import chunk_bytes
from decomposition.memory import shrinking

BASIS_NUMBERS = 2**27
"""Numbers in the bases of the spaces that are made at once: 1 GB."""


@dataclass(frozen=True)
class Ritz:
    """Quadrature nodes and weights for each of k probes after m steps."""

    values: Float[Tensor, "k m"]
    """θ, ascending."""
    weights: Float[Tensor, "k m"]
    """w ≥ 0, summing to 1."""
    residuals: Float[Tensor, "k m"]
    """‖C y − θ y‖ of every Ritz pair: an eigenvalue lies within it of θ."""


def probes(size: int, count: int, seed: int, device: torch.device | None = None) -> Tensor:
    """Seeded random ±1 probes, normalised: (size, count)."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size, count), generator=generator, dtype=torch.float64)
    return ((2.0 * signs - 1.0) / size**0.5).to(device)


def lanczos(matvec: Matvec, start: Float[Tensor, "P k"], steps: int) -> Ritz:
    """Run ``steps`` Lanczos steps from every column of ``start`` (unit vectors)."""
    return _ritz(*_tridiagonals(matvec, start, steps))


def lanczos_with_previous(
    matvec: Matvec, start: Float[Tensor, "P k"], steps: int
) -> tuple[Ritz, Ritz]:
    """The quadratures after ``steps`` − 1 and after ``steps`` steps of one run.

    For a function with a kink at 0, such as |μ|, the two err to opposite sides (one of them has
    a node next to 0): their mean is better than either, half their distance its error.
    """
    alpha, beta = _tridiagonals(matvec, start, max(2, steps))
    return _ritz(alpha[:, :-1], beta[:, :-1]), _ritz(alpha, beta)


def _tridiagonals(matvec: Matvec, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Diagonals (k, m) and off-diagonals (k, m), the last of which leads out of the space.

    An exhausted space contributes nodes of weight zero for the steps that remain.
    """
    steps = min(steps, len(start))

    def some(columns: slice) -> tuple[Tensor, Tensor]:
        found = krylov_spaces(matvec, start[:, columns], steps)
        rest = (0, steps - found.steps)
        return pad(found.alpha, rest), pad(found.beta, rest)

    chunk = chunk_bytes(start.device, 8 * BASIS_NUMBERS) // (8 * steps * len(start))
    alpha, beta = zip(*shrinking(some, start.shape[1], chunk), strict=True)
    return torch.cat(alpha), torch.cat(beta)


def _ritz(alpha: Tensor, beta: Tensor) -> Ritz:
    values, vectors = torch.linalg.eigh(tridiagonal(alpha, beta, alpha.shape[1]))
    return Ritz(values, vectors[:, 0].square(), (beta[:, -1:] * vectors[:, -1]).abs())


def trace_of(ritz: Ritz, function: Callable[[Tensor], Tensor], size: float) -> tuple[float, float]:
    """tr f(C) and its standard error over the probes (infinite for one probe)."""
    samples = size * (ritz.weights * function(ritz.values)).sum(1)
    error = samples.std() / len(samples) ** 0.5 if len(samples) > 1 else torch.tensor(torch.inf)
    return float(samples.mean()), float(error)
