"""Spectral norm of the difference of two curvatures from few products.

‖R − C‖₂ is the largest |Ritz value| of Lanczos with R − C, a lower bound: an eigenvalue of R − C
lies within the residual of it. Products with R are dear and those with C often cheap, so that the
start is the leading eigenvector of W diag(θ) Wᵀ − C, with (θ, W) the ends of R that are known
already: without a product with R it points where either of the two has its largest curvature.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from decomposition.curvature.estimate import Estimate, Symmetric, probes
from decomposition.curvature.krylov import Matvec, krylov_spaces, quadratures
from decomposition.linalg import from_numpy, matmul
from decomposition.spectrum.large import Ends

CHEAP_STEPS = 12
"""Products with a candidate alone, for the start of an iteration on its difference."""


def difference_norms(
    reference: Symmetric,
    candidates: Mapping[str, Symmetric],
    steps: int,
    ends: Ends | None = None,
    cheap_steps: int = CHEAP_STEPS,
    seed: int = 0,
) -> dict[str, Estimate]:
    """A lower bound of every ‖R − C‖₂; its error is the residual, within which there is an
    eigenvalue.

    Args:
        reference: R; its products are taken for all candidates at once.
        candidates: name → C.
        steps: products with R for each of them, and with each.
        ends: of R with their eigenvectors; without them starts are random.
        cheap_steps: further products with each C for its start.
        seed: of the random starts.
    """
    if not candidates:
        return {}
    start = probes(reference.size, len(candidates), seed, reference.device)
    start = start / reference.size**0.5
    if ends is not None and ends.vectors.shape[1]:
        vectors = from_numpy(np.ascontiguousarray(ends.vectors), reference.device)
        values = from_numpy(ends.values.copy(), reference.device)[:, None]

        def cheap(v: Tensor, candidate: Symmetric) -> Tensor:
            return matmul(vectors, values * matmul(vectors.T, v)) - candidate.matvec(v)

        start = torch.cat(
            [
                _leading(partial(cheap, candidate=candidate), start[:, i : i + 1], cheap_steps)
                for i, candidate in enumerate(candidates.values())
            ],
            1,
        )

    def difference(v: Tensor) -> Tensor:
        images = [one.matvec(v[:, i : i + 1]) for i, one in enumerate(candidates.values())]
        return reference.matvec(v) - torch.cat(images, 1)

    (ritz,) = quadratures(difference, start, steps)
    found = {}
    for i, name in enumerate(candidates):
        largest = int(ritz.values[i].abs().argmax())
        found[name] = Estimate(
            float(ritz.values[i, largest].abs()), float(ritz.residuals[i, largest])
        )
    return found


def _leading(matvec: Matvec, start: Tensor, steps: int) -> Tensor:
    """Ritz vector (P, 1) of the largest |Ritz value|."""
    spaces = krylov_spaces(matvec, start, steps)
    ritz = spaces.ritz()
    vector = spaces.basis[0].T @ ritz.rotation[0][:, int(ritz.values[0].abs().argmax())]
    return (vector / torch.linalg.vector_norm(vector))[:, None]
