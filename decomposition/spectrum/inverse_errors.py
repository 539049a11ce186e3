"""Errors of the damped inverse, which is what influence functions use of a curvature.

With d(μ, λ) the damped eigenvalues of the rung, e(ν, λ) those of the reference and W the squared
cosines of their eigenvectors,

    ‖C_λ⁻¹ − R_λ⁻¹‖²_F = Σ 1/d² + Σ 1/e² − 2 (1/d)ᵀ W (1/e)
    Stein(C_λ, R_λ)    = tr(C_λ R_λ⁻¹) − log det(C_λ R_λ⁻¹) − P = dᵀ W (1/e) − Σ log d + Σ log e − P

(James & Stein 1961; twice the Kullback–Leibler divergence of the Gaussians with these
precisions). Most of 1/d is the constant 1/λ, which W leaves as it is: with 1/d = α − a and
1/e = β − b only aᵀ W b is taken from W, so that large λ lose no digits and W may be in single
precision. One pass over W serves every damping, every rung of one basis, both directions and the
subspace overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.damped import DampedSpectrum
from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.damping import NegativeCurvature
from decomposition.linalg import matmul, to_numpy
from decomposition.spectrum.subspaces import descending, squared_cosines

SINGLE = 2048
"""P above which W is in float32."""
SOLUTION_NUMBERS = 2**27
"""Numbers in the solutions that are held at once: 1 GB."""


@dataclass(frozen=True)
class InverseErrors:
    """Errors of one rung against one reference at D dampings."""

    squared: Float[np.ndarray, " D"]
    """‖C_λ⁻¹ − R_λ⁻¹‖²_F / ‖R_λ⁻¹‖²_F."""
    misaligned: Float[np.ndarray, " D"]
    """min over scales s of ‖s C_λ⁻¹ − R_λ⁻¹‖²_F / ‖R_λ⁻¹‖²_F = 1 − cos²: no rank sees a scale."""
    stein: Float[np.ndarray, " D"]
    """Stein divergence, NaN where a damped matrix is not positive definite."""
    subspace_overlap: float
    """‖V_kᵀ U_k‖²_F / k of the k leading eigenvectors."""


@dataclass(frozen=True)
class BothWays:
    """One comparison in both directions."""

    forward: InverseErrors
    """The rung against the reference."""
    backward: InverseErrors
    """The reference against the rung."""


@dataclass(frozen=True)
class _Rows:
    """Rows x = constant − rest, whose rests W acts on."""

    constant: Float[Tensor, " D"]
    rest: Float[Tensor, "D P"]

    @staticmethod
    def of(rows: Float[Tensor, "D P"]) -> _Rows:
        constant = rows.median(1).values
        return _Rows(constant, constant[:, None] - rows)

    @property
    def squared(self) -> Float[Tensor, " D"]:
        """‖x‖²."""
        return (self.constant[:, None] - self.rest).square().sum(1)

    def over(self, norms: Float[Tensor, " D"]) -> _Rows:
        return _Rows(self.constant / norms, self.rest / norms[:, None])


def _inner(x: _Rows, y: _Rows, crossed: Tensor) -> Tensor:
    """xᵀ W y, given the rests' part; rows and columns of W sum to 1."""
    size = x.rest.shape[1]
    outer = x.constant * (y.constant * size - y.rest.sum(1)) - y.constant * x.rest.sum(1)
    return outer + crossed


def _gap(x: _Rows, y: _Rows, crossed: Tensor) -> Tensor:
    """Σ x² + Σ y² − 2 xᵀ W y without its cancellation."""
    step, size = x.constant - y.constant, x.rest.shape[1]
    apart = step * (step * size - 2.0 * (x.rest.sum(1) - y.rest.sum(1)))
    rests = x.rest.square().sum(1) + y.rest.square().sum(1) - 2.0 * crossed
    return (apart + rests).clamp_min(0.0)


class _Side:
    """A curvature at D dampings."""

    def __init__(
        self,
        curvature: Diagonalised,
        dampings: Sequence[float],
        leading: int,
        negative: str | NegativeCurvature,
    ) -> None:
        spectrum: DampedSpectrum = curvature.spectrum()
        d = torch.stack([spectrum.denominators(damping, negative) for damping in dampings])
        self.positive = ((d > 0) & d.isfinite()).all(1)
        # A direction left out (d = ∞) would spoil sums in which a cosine of zero meets it.
        d = d.where(d.isfinite(), 0.0)
        self.log_determinant = d.abs().log().sum(1)
        self.damped = _Rows.of(d)
        self.inverse = _Rows.of(
            torch.stack([spectrum.inverse(damping, negative) for damping in dampings])
        )
        self.top = torch.zeros(curvature.size, dtype=torch.bool, device=d.device)
        self.top[descending(spectrum.values)[:leading]] = True


@dataclass
class _Crossed:
    """Sums over W of one rung with the reference."""

    inverses: Tensor | float = 0.0
    """aᵀ W b of the inverses' rests."""
    forward: Tensor | float = 0.0
    """Of the rung's damped eigenvalues with the reference's inverses."""
    backward: Tensor | float = 0.0
    """The other way round."""
    shared: float = 0.0
    """Squared cosines between the leading eigenvectors."""


def compare_inverses(
    curvatures: Sequence[Diagonalised],
    reference: Diagonalised,
    dampings: Sequence[Sequence[float]],
    reference_dampings: Sequence[float],
    leading: int,
    negative: str | NegativeCurvature = "absolute",
) -> list[BothWays]:
    """Damped-inverse and Stein errors at every damping, and the top-k subspace overlap.

    Of several curvatures of one basis, in both directions, from one pass over W.

    Args:
        curvatures: of equal ``basis_key``.
        reference: R.
        dampings: λ of each curvature.
        reference_dampings: λ of R, as many.
        leading: k of the subspace overlap.
        negative: policy for negative eigenvalues.
    """
    mine = [_Side(c, at, leading, negative) for c, at in zip(curvatures, dampings, strict=True)]
    theirs = _Side(reference, reference_dampings, leading, negative)
    sums = [_Crossed() for _ in mine]
    rows = torch.cat([part for side in mine for part in (side.inverse.rest, side.damped.rest)])
    count = len(reference_dampings)
    for panel, w in _panels(curvatures[0], reference):
        weighted = (rows[:, panel] if w is None else matmul(rows.to(w.dtype), w)).double()
        inverse, damped = theirs.inverse.rest[:, panel], theirs.damped.rest[:, panel]
        for i, (side, crossed) in enumerate(zip(mine, sums, strict=True)):
            start = 2 * count * i
            a, d = weighted[start : start + count], weighted[start + count : start + 2 * count]
            crossed.inverses += (a * inverse).sum(1)
            crossed.forward += (d * inverse).sum(1)
            crossed.backward += (a * damped).sum(1)
            both = theirs.top[panel]
            shared = side.top[panel] & both if w is None else w[side.top][:, both]
            crossed.shared += float(shared.sum())
    return [_errors(side, theirs, c, leading) for side, c in zip(mine, sums, strict=True)]


def _panels(
    curvature: Diagonalised, reference: Diagonalised
) -> Iterator[tuple[slice, Tensor | None]]:
    """Panels of W; None where both have one basis, and W is the identity."""
    if curvature.basis_key() == reference.basis_key():
        yield slice(None), None
        return
    single = curvature.size > SINGLE
    yield from squared_cosines(curvature, reference, torch.float32 if single else torch.float64)


def _errors(mine: _Side, theirs: _Side, crossed: _Crossed, leading: int) -> BothWays:
    between = torch.as_tensor(crossed.inverses)
    squared = _gap(mine.inverse, theirs.inverse, between)
    norms = mine.inverse.squared.sqrt(), theirs.inverse.squared.sqrt()
    chord = _gap(
        mine.inverse.over(norms[0]), theirs.inverse.over(norms[1]), between / (norms[0] * norms[1])
    )
    misaligned = to_numpy((chord * (1.0 - 0.25 * chord)).clamp_min(0.0))  # sin² of the angle
    log_ratio = mine.log_determinant - theirs.log_determinant
    size = mine.inverse.rest.shape[1]

    def errors(norm: Tensor, trace: Tensor, log: Tensor) -> InverseErrors:
        positive = mine.positive & theirs.positive
        stein = torch.where(positive, (trace - log - size).clamp_min(0.0), torch.nan)
        return InverseErrors(
            to_numpy(squared / norm.square()),
            misaligned,
            to_numpy(stein),
            crossed.shared / leading,
        )

    forward = _inner(mine.damped, theirs.inverse, torch.as_tensor(crossed.forward))
    backward = _inner(theirs.damped, mine.inverse, torch.as_tensor(crossed.backward))
    return BothWays(errors(norms[1], forward, log_ratio), errors(norms[0], backward, -log_ratio))


def solution_errors(
    rungs: Mapping[str, Curvature],
    query_parts: Callable[[int], Iterable[Tensor]],
    dampings: Mapping[str, Mapping[str, float]],
    negative: str,
) -> xr.DataArray:
    """1 − cos² between X_λ⁻¹ g_Q and H_λ⁻¹ g_Q, all queries as one vector: (protocol, rung).

    Up to scale, because no rank correlation sees the scale. NaN where a rung has no solution, and
    everywhere if every solve with H takes products of its own.

    Args:
        rungs: with ``hessian`` among them.
        query_parts: most columns at a time → the query gradients in parts.
        dampings: protocol → rung → λ.
        negative: policy for negative eigenvalues.
    """
    names, protocols = list(rungs), list(dampings)
    inner = np.full((3, len(protocols), len(names)), np.nan)
    if not rungs["hessian"].matrix_free:
        inner[:] = 0.0
        most = max(1, SOLUTION_NUMBERS // (rungs["hessian"].size * max(1, len(protocols))))
        for part in query_parts(most):
            inner += _inner_products(rungs, part, dampings, negative)
    squared = inner[0] ** 2 / np.where(inner[1] * inner[2] > 0, inner[1] * inner[2], np.nan)
    found = np.maximum(0.0, 1.0 - squared)
    found[:, names.index("hessian")] = 0.0
    return xr.DataArray(found, {"protocol": protocols, "rung": names}, ("protocol", "rung"))


def _inner_products(
    rungs: Mapping[str, Curvature],
    queries: Tensor,
    dampings: Mapping[str, Mapping[str, float]],
    negative: str,
) -> np.ndarray:
    """⟨x, h⟩, ‖x‖² and ‖h‖² of the solutions with every rung and with H: (3, protocols, rungs)."""
    found = np.full((3, len(dampings), len(rungs)), np.nan)

    def solved(name: str) -> Tensor:
        wanted = [chosen[name] for chosen in dampings.values()]
        return rungs[name].solutions(queries, wanted, negative).x.flatten(1)

    exact = solved("hessian")
    for column, (name, rung) in enumerate(rungs.items()):
        if rung.matrix_free or not all(name in chosen for chosen in dampings.values()):
            continue
        mine = exact if name == "hessian" else solved(name)
        pairs = ((mine, exact), (mine, mine), (exact, exact))
        for row, (one, other) in enumerate(pairs):
            found[row, :, column] = to_numpy((one * other).sum(1))
    return found
