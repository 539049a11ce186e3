"""Which part of a spectrum carries the gradients, and which part costs attribution.

A band is a decade of |μ| of the reference, one for each sign, with Π_b the projector onto its
eigenvectors; what is below 10⁻⁸ of the largest is the band ``null``.

The score error of a rung is D = g_Qᵀ Δ g_I / N with Δ = Ĉ_λ⁻¹ − R_λ⁻¹. As Σ_b Π_b = I,

    ‖D‖² = Σ_b ½ (⟨g_Qᵀ Π_b Δ g_I, N D⟩ + ⟨g_Qᵀ Δ Π_b g_I, N D⟩) / N²

is additive over bands, with both sides of the product treated alike. A part may be negative:
there the band's error makes up for that of another. Both sums need 2 Q solves, not N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.damping import NegativeCurvature
from decomposition.errors import DecompositionError
from decomposition.linalg import matmul, to_numpy
from decomposition.scores.gradients import Gradients

DECADES = 8
"""Decades below the largest |μ| that have a band of their own."""


@dataclass(frozen=True)
class Bands:
    """The bands of one spectrum, from its most negative to its largest eigenvalues."""

    labels: tuple[str, ...]
    """Such as ``−10⁻³``: negative, of magnitude 10⁻³ … 10⁻²; ``null`` lies in the middle."""
    decade: Float[np.ndarray, " B"]
    """⌊log₁₀|μ|⌋, NaN for ``null``."""
    sign: Float[np.ndarray, " B"]
    """−1, 0 or 1."""
    member: Float[Tensor, " P"]
    """Band of every eigenvector, in the order of the basis."""

    def sums(self, values: Float[Tensor, "P ..."]) -> Float[Tensor, "B ..."]:
        """Sum over the eigenvectors of each band."""
        out = values.new_zeros(len(self.labels), *values.shape[1:])
        return out.index_add_(0, self.member, values)

    def coordinates(self) -> dict[str, object]:
        """Coordinates of a ``band`` dimension."""
        return {
            "band": list(self.labels),
            "decade": ("band", self.decade),
            "sign": ("band", self.sign),
            "count": ("band", np.bincount(to_numpy(self.member), minlength=len(self.labels))),
        }


def decade_bands(mu: Float[Tensor, " P"]) -> Bands:
    """Decades of |μ| by sign, from −large over null to +large; only those that are inhabited."""
    magnitude = mu.abs()
    known = magnitude > 10.0**-DECADES * magnitude.max()
    decade = torch.where(known, magnitude.clamp_min(1e-300).log10().floor(), torch.nan)
    sign = torch.where(known, mu.sign(), 0.0)
    keys = [(float(s), float(d)) for s, d in zip(to_numpy(sign), to_numpy(decade), strict=True)]
    # NaN is not equal to itself: the null band has decade 0 in the key
    keys = [(s, 0.0 if s == 0 else d) for s, d in keys]
    ordered = sorted(set(keys), key=lambda key: (key[0], key[0] * key[1]))
    place = {key: i for i, key in enumerate(ordered)}
    labels = tuple(
        "null" if s == 0 else f"{'+' if s > 0 else '-'}1e{int(d):+03d}" for s, d in ordered
    )
    return Bands(
        labels,
        np.array([np.nan if s == 0 else d for s, d in ordered]),
        np.array([s for s, _ in ordered]),
        torch.tensor([place[key] for key in keys], device=mu.device),
    )


def gradient_energy(reference: Diagonalised, gradients: Gradients) -> xr.Dataset:
    """share(split, band): mean over examples of ‖Π_b g‖² / ‖g‖², for query and train gradients.

    Beside it curvature(band), the band's share of Σ|μ|. Examples whose gradient is zero are left
    out.
    """
    mu = reference.basis_values()
    bands = decade_bands(mu)
    rows = []
    for g in (gradients.query, gradients.train):
        energy = bands.sums(reference.to_basis(g).square())
        total = energy.sum(0)
        rows.append(to_numpy((energy[:, total > 0] / total[total > 0]).mean(1)))
    curvature = to_numpy(bands.sums(mu.abs()))
    return xr.Dataset(
        {
            "share": (("split", "band"), np.stack(rows)),
            "curvature": ("band", curvature / curvature.sum()),
        },
        {"split": ["query", "train"], **bands.coordinates()},
    )


def score_error(
    rungs: Mapping[str, Curvature],
    reference: Diagonalised,
    gradients: Gradients,
    damping: float | Mapping[str, float],
    negative: str | NegativeCurvature = "absolute",
) -> xr.Dataset:
    """Squared score error of every rung, by band of the reference's spectrum.

    Args:
        rungs: name → curvature.
        reference: R, whose bands they are.
        gradients: g_Q and g_I.
        damping: λ of all, or rung → λ with the reference's own under ``reference``.
        negative: policy for negative eigenvalues.

    Returns:
        share(rung, band), the parts of ‖D‖² / ‖D‖², summing to 1 (NaN for the reference itself);
        relative(rung) = ‖D‖ / ‖g_Qᵀ R_λ⁻¹ g_I / N‖; part(rung, band) = share · relative².

    Raises:
        DecompositionError: a λ is missing.
        DampingError: a damped matrix is singular.
    """
    bands = decade_bands(reference.basis_values())
    dampings = _dampings(damping, rungs)
    query, train = gradients.query, gradients.train
    exact = reference.solve(query, dampings["reference"], negative)
    scale = float(torch.linalg.vector_norm(matmul(exact.T, train)))
    g_query = reference.to_basis(query)
    share = np.full((len(rungs), len(bands.labels)), np.nan)
    relative = np.zeros(len(rungs))
    for row, (name, curvature) in enumerate(rungs.items()):
        gap = curvature.solve(query, dampings[name], negative) - exact
        error = matmul(gap.T, train)  # N D: (Q, N)
        squared = float(error.square().sum())
        relative[row] = squared**0.5 / scale
        if relative[row] < 1e-9:  # the reference itself, or equal to it up to rounding
            continue
        pulled = matmul(train, error.T.contiguous())  # g_I N Dᵀ: (P, Q)
        solved = curvature.solve(pulled, dampings[name], negative)
        solved -= reference.solve(pulled, dampings["reference"], negative)
        of_train = reference.to_basis(gap) * reference.to_basis(pulled)
        of_query = g_query * reference.to_basis(solved)
        each = 0.5 * (of_train + of_query).sum(1)
        share[row] = to_numpy(bands.sums(each)) / squared
    return xr.Dataset(
        {
            "share": (("rung", "band"), share),
            "relative": ("rung", relative),
            "part": (("rung", "band"), share * relative[:, None] ** 2),
        },
        {
            "rung": list(rungs),
            "damping": ("rung", [dampings[name] for name in rungs]),
            **bands.coordinates(),
        },
        {"reference_damping": dampings["reference"]},
    )


def _dampings(
    damping: float | Mapping[str, float], rungs: Mapping[str, object]
) -> dict[str, float]:
    names = ["reference", *rungs]
    if not isinstance(damping, Mapping):
        return dict.fromkeys(names, float(damping))
    for name in names:
        if name not in damping:
            raise DecompositionError(f"no damping for {name!r}: give one for {', '.join(names)}")
    return {name: float(damping[name]) for name in names}
