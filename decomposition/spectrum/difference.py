"""Spectral norm of the difference of two curvatures from few products.

‖R − C‖₂ is the largest |Ritz value| of Lanczos with R − C, a lower bound: an eigenvalue of R − C
lies within the residual of it. Products with R are dear and those with C often cheap, so that the
start is the leading eigenvector of W diag(θ) Wᵀ − C, with (θ, W) the ends of R that are known
already: without a product with R it points where either of the two has its largest curvature.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from decomposition.curvature.large.krylov import Matvec, krylov_spaces, tridiagonal
from decomposition.linalg import from_numpy, matmul
from decomposition.spectrum.estimates import Estimate
from decomposition.spectrum.lanczos import lanczos, probes
from decomposition.spectrum.large import Ends
from decomposition.spectrum.operators import Symmetric


def difference_norm(
    reference: Symmetric,
    candidate: Symmetric,
    steps: int,
    ends: Ends | None = None,
    cheap_steps: int = 12,
    seed: int = 0,
) -> Estimate:
    """A lower bound of ‖R − C‖₂; its error is the residual, within which there is an eigenvalue.

    Args:
        reference: R.
        candidate: C.
        steps: products with R and with C.
        ends: of R with their eigenvectors; without them the start is random.
        cheap_steps: further products with C for the start.
        seed: of the random start.
    """
    start = probes(reference.size, 1, seed, reference.device)
    if ends is not None and ends.vectors.shape[1]:
        vectors = from_numpy(np.ascontiguousarray(ends.vectors), reference.device)
        values = from_numpy(ends.values.copy(), reference.device)[:, None]

        def cheap(v: Tensor) -> Tensor:
            return matmul(vectors, values * matmul(vectors.T, v)) - candidate.matvec(v)

        start = _leading(cheap, start, cheap_steps)

    def difference(v: Tensor) -> Tensor:
        return reference.matvec(v) - candidate.matvec(v)

    ritz = lanczos(difference, start, steps)
    largest = int(ritz.values[0].abs().argmax())
    return Estimate(float(ritz.values[0, largest].abs()), float(ritz.residuals[0, largest]))


def _leading(matvec: Matvec, start: Tensor, steps: int) -> Tensor:
    """Ritz vector (P, 1) of the largest |Ritz value|."""
    spaces = krylov_spaces(matvec, start, steps)
    values, vectors = torch.linalg.eigh(tridiagonal(spaces.alpha, spaces.beta, spaces.steps)[0])
    vector = spaces.basis[0].T @ vectors[:, [int(values.abs().argmax())]]
    return vector / torch.linalg.vector_norm(vector)
