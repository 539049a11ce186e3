"""Functions of a curvature known by its products, on vectors: one Krylov space for every λ.

m Lanczos steps from b make an orthonormal basis V of span{b, C b, …, C^(m−1) b} and the
tridiagonal T = VᵀCV with eigenpairs (θ, U), so that

    f(C) b ≈ ‖b‖ V U f(θ) Uᵀ e_1,

with f(μ) = 1/d(μ, λ) for every damping λ and every policy d for negative eigenvalues: products are
shared by all of them. For d = μ + λ with C + λI definite the error vanishes exponentially; |μ| and
max(μ, 0) have a kink at 0, and it goes down with the square of m. What is known of the error is
the change of f(C) b over the last fifth of the steps.

Source: Higham (2008), Functions of Matrices, chapter 13; Lanczos with full reorthogonalisation
(Parlett 1998, The Symmetric Eigenvalue Problem, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Matvec = Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]
Function = Callable[[Float[Tensor, " m"]], Float[Tensor, " m"]]
"""Ritz values of one space → f of each."""
EARLIER = 0.8
"""Part of the steps that the last change is taken from."""
LITTLE = 0.7
"""Part of a vector's length that is left if orthogonalising it took little."""
EXHAUSTED = 1e-12
"""Length of a new direction, relative to the largest curvature met, at which there is none."""


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
        values, vectors = torch.linalg.eigh(tridiagonal(self.alpha, self.beta, steps))
        f = torch.stack([function(theta) for theta in values])
        return self.norms[:, None] * (vectors @ (f * vectors[:, 0])[:, :, None])[:, :, 0]


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


def tridiagonal(
    alpha: Float[Tensor, "k m"], beta: Float[Tensor, "k m"], steps: int
) -> Float[Tensor, "k steps steps"]:
    """T of the first steps."""
    off = torch.diag_embed(beta[:, : steps - 1], 1)
    return torch.diag_embed(alpha[:, :steps]) + off + off.mT
