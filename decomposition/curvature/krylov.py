"""The Lanczos iteration, of several vectors at once, and what its Krylov spaces tell.

Functions of a curvature on vectors, with one Krylov space for every λ: m steps from b make an
orthonormal basis V of span{b, C b, …, C^(m−1) b} and the tridiagonal T = VᵀCV with eigenpairs
(θ, U), so that

    f(C) b ≈ ‖b‖ V U f(θ) Uᵀ e_1,

with f(μ) = 1/d(μ, λ) for every damping λ and every policy d for negative eigenvalues: products are
shared by all of them. For d = μ + λ with C + λI definite the error vanishes exponentially; |μ| and
max(μ, 0) have a kink at 0, and it goes down with the square of m. What is known of the error is
the change of f(C) b over the last fifth of the steps.

Traces tr f(C) = Σ_i f(μ_i) by stochastic Lanczos quadrature: P · mean over random unit vectors z of
Σ_k w_k f(θ_k), with weights w the squared first components of the eigenvectors of T (Ubaru, Chen &
Saad 2017, doi 10.1137/16M1104974).

Source: Higham (2008), Functions of Matrices, chapter 13; Lanczos with full reorthogonalisation
(Parlett 1998, The Symmetric Eigenvalue Problem, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from decomposition.curvature.estimate import Estimate
from decomposition.device import chunk_bytes
from decomposition.memory import shrinking

Matvec = Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]
Function = Callable[[Float[Tensor, " m"]], Float[Tensor, " m"]]
"""Ritz values of one space → f of each."""
EARLIER = 0.8
"""Part of the steps that the last change is taken from."""
LITTLE = 0.7
"""Part of a vector's length that is left if orthogonalising it took little."""
EXHAUSTED = 1e-12
"""Length of a new direction, relative to the largest curvature met, at which there is none."""
BASIS_NUMBERS = 2**27
"""Numbers in the bases of the spaces that are made at once: 1 GB."""


@dataclass(frozen=True)
class Ritz:
    """Eigenpairs of T after m steps from each of k vectors, which are nodes of a quadrature."""

    values: Float[Tensor, "k m"]
    """θ, ascending."""
    rotation: Float[Tensor, "k m m"]
    """U: Ritz vector j is V U[:, j]."""
    residuals: Float[Tensor, "k m"]
    """‖C y − θ y‖ of every Ritz pair: an eigenvalue lies within it of θ."""

    @property
    def weights(self) -> Float[Tensor, "k m"]:
        """w ≥ 0, summing to 1."""
        return self.rotation[:, 0].square()

    @staticmethod
    def of(alpha: Float[Tensor, "k m"], beta: Float[Tensor, "k m"], steps: int) -> Ritz:
        """From the first steps of a run whose T has this diagonal and off-diagonal."""
        off = torch.diag_embed(beta[:, : steps - 1], 1)
        values, rotation = torch.linalg.eigh(torch.diag_embed(alpha[:, :steps]) + off + off.mT)
        return Ritz(values, rotation, (beta[:, steps - 1, None] * rotation[:, -1]).abs())

    def trace(self, function: Function, scale: float | Float[Tensor, " k"]) -> Estimate:
        """tr f(C) with its standard error over the probes (infinite of one).

        Args:
            function: f.
            scale: P, or P times the squared lengths of probes that are no unit vectors.
        """
        samples = scale * (self.weights * function(self.values)).sum(1)
        error = samples.std() / len(samples) ** 0.5 if len(samples) > 1 else torch.inf
        return Estimate(float(samples.mean()), float(error))


@dataclass(frozen=True)
class KrylovSpaces:
    """The Krylov spaces of k vectors after m steps."""

    basis: Float[Tensor, "k m P"]
    """V, row by row; zero rows once a space is exhausted."""
    alpha: Float[Tensor, "k m"]
    """Diagonal of T."""
    beta: Float[Tensor, "k m"]
    """Beside the diagonal; the last one leads out of the space."""
    norms: Float[Tensor, " k"]
    """‖b‖."""

    @property
    def steps(self) -> int:
        """m: products taken from every vector."""
        return self.alpha.shape[1]

    def ritz(self, steps: int | None = None) -> Ritz:
        """Ritz pairs after so many steps; default after all of them."""
        return Ritz.of(self.alpha, self.beta, steps or self.steps)

    def apply(self, function: Function) -> tuple[Float[Tensor, "P k"], Float[Tensor, " k"]]:
        """f(C) b of every column, and its relative change over the last fifth of the steps."""
        found, change = self.coefficients(function)
        return torch.bmm(found[:, None], self.basis)[:, 0].T, change

    def coefficients(self, function: Function) -> tuple[Float[Tensor, "k m"], Float[Tensor, " k"]]:
        """f(C) b in the basis, and the same change."""
        now = self._after(self.steps, function)
        earlier = self._after(max(1, int(EARLIER * self.steps)), function)
        difference = now.clone()
        difference[:, : earlier.shape[1]] -= earlier
        size = torch.linalg.vector_norm(now, dim=1)
        change = torch.linalg.vector_norm(difference, dim=1) / size.clamp_min(1e-300)
        change = torch.where(self.beta[:, -1] == 0, 0.0, change.nan_to_num(torch.inf, torch.inf))
        return now, torch.where(self.norms == 0, 0.0, change)

    def _after(self, steps: int, function: Function) -> Float[Tensor, "k steps"]:
        found = self.ritz(steps)
        f = torch.stack([function(theta) for theta in found.values])
        along = (f * found.rotation[:, 0])[:, :, None]
        return self.norms[:, None] * (found.rotation @ along)[:, :, 0]


def krylov_spaces(
    matvec: Matvec,
    b: Float[Tensor, "P k"],
    most: int,
    enough: Callable[[KrylovSpaces], bool] = lambda _: False,
    every: int = 10,
) -> KrylovSpaces:
    """Lanczos from every column of ``b``, all at once, until it is enough.

    Args:
        matvec: C v.
        b: vectors; zero columns have empty spaces.
        most: steps, at most P of them.
        enough: asked every so many steps.
        every: these.
    """
    size, count = b.shape
    most = max(1, min(most, size))
    basis = b.new_zeros(count, most, size)
    alpha, beta = b.new_zeros(count, most), b.new_zeros(count, most)
    norms = torch.linalg.vector_norm(b, dim=0)
    current = (b / norms.clamp_min(1e-300)).T.contiguous()
    alive = norms > 0
    for step in range(most):
        basis[:, step] = current
        image = matvec(current.T.contiguous()).T
        alpha[:, step] = (image * current).sum(1)
        image = image - alpha[:, step, None] * current
        if step:
            image = image - beta[:, step - 1, None] * basis[:, step - 1]
        image, norm = _orthogonal(basis[:, : step + 1], image)
        alive &= norm > EXHAUSTED * (alpha[:, : step + 1].abs().max(1).values + 1e-300)
        beta[:, step] = torch.where(alive, norm, 0.0)
        current = torch.where(alive[:, None], image / norm.clamp_min(1e-300)[:, None], 0.0)
        part = slice(0, step + 1)
        if (step + 1) % every == 0 or step + 1 == most or not bool(alive.any()):
            found = KrylovSpaces(basis[:, part], alpha[:, part], beta[:, part], norms)
            if step + 1 == most or not bool(alive.any()) or enough(found):
                return found
    raise AssertionError("at least one step is taken")


def _orthogonal(
    known: Float[Tensor, "k m P"], image: Float[Tensor, "k P"]
) -> tuple[Float[Tensor, "k P"], Float[Tensor, " k"]]:
    """What is orthogonal to the rows, and its length: a second time only if the first took much.

    Once is enough where the length hardly changes, twice always (Parlett 1998, §6.9). The bases of
    large models do not fit the cache, so that every pass costs as much as part of a product.
    """
    norm = torch.linalg.vector_norm(image, dim=1)
    for _ in range(2):
        before = norm
        image = image - torch.bmm(torch.bmm(known, image[:, :, None]).mT, known)[:, 0]
        norm = torch.linalg.vector_norm(image, dim=1)
        if bool((norm >= LITTLE * before).all()):
            break
    return image, norm


def quadratures(
    matvec: Matvec, start: Float[Tensor, "P k"], steps: int, last: int = 1
) -> list[Ritz]:
    """Those after each of the ``last`` steps of one run of ``steps``, the final one at the end.

    Bases are kept of as many start vectors at once as fit, and then forgotten. A space that is
    exhausted contributes nodes of weight zero for the steps that remain.

    For a function with a kink at 0, such as |μ|, successive quadratures err to opposite sides (one
    of them has a node next to 0): their mean is better than either, half their distance its error.

    Args:
        matvec: C v.
        start: unit vectors.
        steps: of every run, at most P.
        last: how many quadratures.
    """
    steps = min(steps, len(start))

    def some(columns: slice) -> tuple[Tensor, Tensor]:
        found = krylov_spaces(matvec, start[:, columns], steps)
        rest = (0, steps - found.steps)
        return pad(found.alpha, rest), pad(found.beta, rest)

    chunk = chunk_bytes(start.device, 8 * BASIS_NUMBERS) // (8 * steps * len(start))
    alpha, beta = (
        torch.cat(parts) for parts in zip(*shrinking(some, start.shape[1], chunk), strict=True)
    )
    return [Ritz.of(alpha, beta, m) for m in range(max(1, steps - last + 1), steps + 1)]
