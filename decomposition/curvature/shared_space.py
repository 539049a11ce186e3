"""One Krylov space of many vectors: block Lanczos, and functions of C on all of them at every λ.

An orthonormal basis V of span{B, C B, C² B, …}, row by row, and V C Vᵀ = U diag(θ) Uᵀ give

    f(C) b ≈ Vᵀ U f(θ) Uᵀ V b        for every column b of B,

with f(μ) = 1/d(μ, λ) for every damping λ and every policy d for negative eigenvalues: no product
is made for a λ. Nor is the leading eigenspace, which all vectors need, found again for each of
them: for 500 queries of a model of P = 101,770 one space of 3,000 dimensions tells more than 50,000
products in spaces of their own.

What is known of the error is the change of f(C) b since the space had four fifths of its
dimensions. For d = μ + λ with C + λI definite it vanishes exponentially; |μ| and max(μ, 0) have a
kink at 0, and it goes down with the square of the steps.

Source: Golub & Underwood (1977), The block Lanczos method, with full reorthogonalisation; functions
of matrices by it: Frommer, Lund & Szyld (2017, ETNA 47).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.krylov import EARLIER, Function, Matvec
from decomposition.linalg import eigh, matmul

GROWTH, LEAST = 1.25, 10
"""How much a space grows until it is asked again whether it is enough, and by how much at least."""
EXHAUSTED = 500
"""Length of a new direction, relative to the largest image met and in units of rounding, at which
there is none."""
COLUMNS = 2**13
"""Of a basis, that are multiplied at once."""
SAME = 1e-5
"""Part of a vector's length outside of the span of B at which it is none of the vectors."""


@dataclass(frozen=True)
class Ritz:
    """V C Vᵀ = U diag(θ) Uᵀ of the first dimensions of a space."""

    values: Float[Tensor, " K"]
    """θ, ascending."""
    rotation: Float[Tensor, "K K"]
    """U."""

    def coefficients(self, function: Function, start: Float[Tensor, "q k"]) -> Float[Tensor, "K k"]:
        """f(C) b in the basis V, for b = V[:q]ᵀ start, as far as it lies in these dimensions."""
        inside = start[: len(self.values)]
        along = matmul(self.rotation[: len(inside)].T.contiguous(), inside)
        return matmul(self.rotation, function(self.values)[:, None] * along)


@dataclass(frozen=True)
class Projection:
    """What a space knows of C and its vectors, without its basis."""

    start: Float[Tensor, "q k"]
    """The vectors b, which lie in the span of the first q dimensions: V[:q] b."""
    now: Ritz
    earlier: Ritz | None
    """Of the space when it was smaller; None where it cannot grow, so that all is exact."""

    @property
    def dimensions(self) -> int:
        """K: products made."""
        return len(self.now.values)

    def coefficients(self, function: Function) -> Float[Tensor, "K k"]:
        """V f(C) b of every vector."""
        return self.now.coefficients(function, self.start)

    def change(self, function: Function) -> Float[Tensor, " k"]:
        """Relative change of f(C) b since the space was smaller."""
        found = self.coefficients(function)
        if self.earlier is None:
            return found.new_zeros(found.shape[1])
        before = self.earlier.coefficients(function, self.start)
        difference = found.clone()
        difference[: len(before)] -= before
        size = torch.linalg.vector_norm(found, dim=0)
        change = torch.linalg.vector_norm(difference, dim=0) / size.clamp_min(1e-300)
        return torch.where(size == 0, 0.0, change.nan_to_num(torch.inf, torch.inf))


@dataclass(frozen=True)
class SharedSpace:
    """A Krylov space of k vectors."""

    basis: Float[Tensor, "K P"]
    """V."""
    projection: Projection

    def apply(self, function: Function) -> Float[Tensor, "P k"]:
        """f(C) b of every vector."""
        found = self.projection.coefficients(function)
        return matmul(self.basis.T, found.to(self.basis.dtype)).to(found.dtype)

    def of(self, v: Float[Tensor, "P n"]) -> SharedSpace | None:
        """The same space of other vectors in the span of its own; None where they are not."""
        first = len(self.projection.start)
        start = matmul(self.basis[:first], v.to(self.basis.dtype)).to(v.dtype)
        whole, inside = v.square().sum(0), start.square().sum(0)
        if bool((whole - inside > SAME * whole).any()):
            return None
        return replace(self, projection=replace(self.projection, start=start))

    def in_single_precision(self) -> SharedSpace:
        """With half of the memory; solutions have a relative rounding of 1e-7 times μ_max / λ."""
        return replace(self, basis=self.basis.float())


def dimensions(parameters: int, vectors: int, steps: int, largest: int) -> int:
    """Of the space of so many vectors, which takes as many products.

    Args:
        parameters: P.
        vectors: that share it, and each have a dimension.
        steps: most dimensions for one of them.
        largest: that fit.
    """
    return min(steps * vectors, max(largest, vectors), parameters)


def shared_space(
    matvec: Matvec,
    b: Float[Tensor, "P k"],
    most: int,
    enough: Callable[[Projection], bool] = lambda _: False,
    dtype: torch.dtype = torch.float64,
) -> SharedSpace:
    """The Krylov space of all columns of ``b``, grown until it is enough.

    Args:
        matvec: C v.
        b: vectors; those that are zero take no dimension.
        most: dimensions, and products; at most P of them. So many must at least be had as ``b``
            has independent columns.
        enough: asked whenever the space is a quarter larger.
        dtype: of the basis: float32 takes half of the memory, and is enough for products that
            have its rounding.
    """
    size = len(b)
    most = max(1, min(most, size))
    basis, projected = b.new_empty(most, size, dtype=dtype), b.new_zeros(most, most)
    norms = torch.linalg.vector_norm(b, dim=0)
    block = _directions((b / norms.clamp_min(1e-300)).T.to(dtype), basis[:0], 1.0)[:most]
    known, scale, asked, ends = 0, 0.0, LEAST, [0]
    start = matmul(block, b.to(dtype)).double()
    while len(block):
        new = slice(known, known + len(block))
        known = new.stop
        basis[new] = block
        block = matvec(block.T.double().contiguous()).T.to(dtype).contiguous()
        scale = max(scale, float(torch.linalg.vector_norm(block, dim=1).max()))
        along = matmul(block, basis[:known].T)
        projected[new, :known], projected[:known, new] = along.double(), along.T.double()
        if known < most:
            _subtract(block, along, basis[:known])
            block = _directions(block, basis[:known], scale)
        ends.append(known)
        exact = known == size or not len(block)
        last = known == most or exact
        if last or known >= asked:
            asked = max(known + LEAST, int(GROWTH * known))
            smaller = max(end for end in ends if end <= EARLIER * known)
            found = Projection(
                start, _ritz(projected, known), None if exact else _ritz(projected, smaller)
            )
            if last or enough(found):
                return SharedSpace(basis[:known], found)
        block = block[: most - known]
    nothing = Projection(start, _ritz(projected, 0), None)
    return SharedSpace(basis[:0], nothing)  # of zeros alone


def _ritz(projected: Float[Tensor, "m m"], size: int) -> Ritz:
    part = projected[:size, :size]
    return Ritz(*eigh(0.5 * (part + part.T))) if size else Ritz(part.diagonal(), part)


def _directions(
    rest: Float[Tensor, "q P"], basis: Float[Tensor, "K P"], scale: float
) -> Float[Tensor, "r P"]:
    """An orthonormal basis of the rows, the longest direction first, orthogonal to ``basis``.

    Directions of rounding are left out; what is left of ``basis`` in the short ones is removed
    once they have length 1 (twice is enough: Parlett 1998, §6.9).
    """
    q, r = torch.linalg.qr(rest.T)
    left, lengths, _ = torch.linalg.svd(r)
    kept = lengths > EXHAUSTED * torch.finfo(rest.dtype).eps * scale
    block = matmul(left[:, kept].T.contiguous(), q.T)
    if not len(basis) or not len(block):
        return block
    del q
    _subtract(block, matmul(block, basis.T), basis)
    # nearly orthonormal, so that its Gram matrix has no small eigenvalue
    lower, failed = torch.linalg.cholesky_ex(matmul(block, block.T))
    if failed:
        return torch.linalg.qr(block.T)[0].T
    return torch.linalg.solve_triangular(lower, block, upper=False)


def _subtract(
    block: Float[Tensor, "q P"], along: Float[Tensor, "q K"], basis: Float[Tensor, "K P"]
) -> None:
    """block ← block − along · basis, some columns at a time: blocks are as large as all queries."""
    for start in range(0, block.shape[1], COLUMNS):
        some = slice(start, start + COLUMNS)
        block[:, some] -= matmul(along, basis[:, some])
