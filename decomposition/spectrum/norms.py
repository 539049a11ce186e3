"""Spectral and nuclear norms of the difference of two curvatures.

Both follow from the eigenvalues of the difference where those are cheap: in a common basis, block
by block, or up to ``EXACT_SIZE``. Elsewhere ‖R − C‖₂ is the largest |Ritz value| of Lanczos with
R − C, a lower bound: an eigenvalue of R − C lies within the residual of it. The nuclear norm is
then left out, because what few products tell of it is off by a fifth.

Products with R may be dear and those with C are often cheap, so that where few are taken the start
is the leading eigenvector of W diag(θ) Wᵀ − C, with (θ, W) the ends of R that are known already:
without a product with R it points where either of the two has its largest curvature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from decomposition.curvature.block_diagonal import BlockDiagonal
from decomposition.curvature.estimate import Estimate, Symmetric, probes
from decomposition.curvature.krylov import KrylovSpaces, Matvec, krylov_spaces
from decomposition.curvature.operator import Curvature
from decomposition.linalg import eigvalsh, from_numpy, matmul
from decomposition.spectrum.distances import same_blocks
from decomposition.spectrum.measure import Ends

EXACT_SIZE = 1024
"""P up to which a difference is formed and its eigenvalues are computed."""
CONVERGED, ASKED = 1e-4, 4
"""Residual of a spectral norm, relative to it, at which its iteration ends, and the steps between
two looks at it: the error of the norm goes with its square."""
CHEAP_STEPS = 12
"""Products with a candidate alone, for the start of an iteration on its difference."""


@dataclass(frozen=True)
class Norms:
    """Norms of one difference."""

    spectral: Estimate
    """max |μ|; its error is a residual, within which of it there is an eigenvalue."""
    nuclear: float = np.nan
    """Σ |μ|; NaN where the eigenvalues are not known."""


def known_norms(first: Curvature, second: Curvature) -> Norms | None:
    """Norms of a difference from its eigenvalues; None where those are not had, or are dear."""
    a, b = first.eigenbasis, second.eigenbasis
    if a is None or b is None:
        return None
    if a.basis_key() == b.basis_key():
        return _norms(a.basis_values() - b.basis_values())
    if isinstance(a, BlockDiagonal) and isinstance(b, BlockDiagonal) and same_blocks(a, b):
        pairs = zip(a.diagonal_blocks().values(), b.diagonal_blocks().values(), strict=True)
        parts = [known_norms(one, other) for one, other in pairs]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        return Norms(
            Estimate(max(part.spectral for part in found)), sum(part.nuclear for part in found)
        )
    if a.size > EXACT_SIZE:
        return None
    return _norms(eigvalsh(a.dense() - b.dense()))


def _norms(values: Tensor) -> Norms:
    return Norms(Estimate(float(values.abs().max())), float(values.abs().sum()))


def norms_from(
    reference: Curvature,
    candidates: Mapping[str, Curvature],
    steps: int,
    ends: Ends | None = None,
    seed: int = 0,
    products: Mapping[str, Symmetric] | None = None,
) -> dict[str, Norms]:
    """Norms of every R − C, by whatever their forms tell.

    Args:
        reference: R.
        candidates: name → C.
        steps: most Lanczos steps of each difference whose eigenvalues are not known.
        ends: of R with their eigenvectors, where products with R are dear.
        seed: of random starts.
        products: name → what is multiplied in the place of C, to be counted; the key ``reference``
            stands for R.
    """
    found: dict[str, Norms] = {}
    for name, candidate in candidates.items():
        known = known_norms(reference, candidate)
        if known is not None:
            found[name] = known
    counted = products or {}
    rest = {n: counted.get(n, c) for n, c in candidates.items() if n not in found}
    iterated = difference_norms(counted.get("reference", reference), rest, steps, ends, seed=seed)
    return found | {name: Norms(norm) for name, norm in iterated.items()}


def difference_norms(
    reference: Symmetric,
    candidates: Mapping[str, Symmetric],
    steps: int,
    ends: Ends | None = None,
    cheap_steps: int = CHEAP_STEPS,
    seed: int = 0,
) -> dict[str, Estimate]:
    """A lower bound of every ‖R − C‖₂; its error is the residual.

    Args:
        reference: R; its products are taken for all candidates at once.
        candidates: name → C.
        steps: most products with R for each of them, and with each.
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

    ritz = krylov_spaces(difference, start, steps, _converged, every=ASKED).ritz()
    found = {}
    for i, name in enumerate(candidates):
        largest = int(ritz.values[i].abs().argmax())
        found[name] = Estimate(
            float(ritz.values[i, largest].abs()), float(ritz.residuals[i, largest])
        )
    return found


def _converged(spaces: KrylovSpaces) -> bool:
    """Whether the largest |Ritz value| of every space is known to ``CONVERGED``."""
    ritz = spaces.ritz()
    largest = ritz.values.abs().argmax(1, keepdim=True)
    value, residual = (part.gather(1, largest).abs() for part in (ritz.values, ritz.residuals))
    return bool((residual <= CONVERGED * value).all())


def _leading(matvec: Matvec, start: Tensor, steps: int) -> Tensor:
    """Ritz vector (P, 1) of the largest |Ritz value|."""
    spaces = krylov_spaces(matvec, start, steps)
    ritz = spaces.ritz()
    vector = spaces.basis[0].T @ ritz.rotation[0][:, int(ritz.values[0].abs().argmax())]
    return (vector / torch.linalg.vector_norm(vector))[:, None]
