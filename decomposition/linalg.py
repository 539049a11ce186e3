"""Float64 matrix products and symmetric eigenproblems on the fastest library at hand.

On the CPU NumPy's and SciPy's BLAS/LAPACK serve through zero-copy views: on AMD processors
OpenBLAS multiplies a third faster than the MKL inside PyTorch, on Intel they are on a par, and
of a matrix with itself it makes one triangle. But it has threads of its own: those of the library
that was called last wait for more, busily, and for some 20 ms each has half of every core
(2 threads on 2 cores: a product of 20 ms took 60). So what takes little longer than that stays
with PyTorch, whose operations stand before and after it.

On other devices PyTorch's own kernels are used; where an eigenproblem does not fit into a device's
memory, it is solved on the CPU. Arrays and tensors meet here alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float
from scipy.linalg import lapack
from torch import Tensor

from decomposition.errors import DampingError, DecompositionError
from decomposition.inputs import wide
from decomposition.ledger import DECOMPOSE, spending
from decomposition.memory import out_of_memory

Result = TypeVar("Result")
LARGE = 2**33
"""Multiply-adds from which NumPy serves for a product."""
STAGED = 3072
"""Side from which SciPy serves for an eigendecomposition, whose stages are called one by one: on 2
threads of an Intel processor it takes 2.6 times as long as PyTorch at 1,200, 1.1 times at 4,000 and
0.86 times at 6,570, on an AMD one 1.4, 0.7 and 0.63 times: between them."""
REFLECTIONS, VECTORS = 256, 1024
"""Reflections that are applied at once, and eigenvectors that they are applied to."""
ROWS = 512
"""Rows of a symmetric matrix that are multiplied at once."""


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The values on the CPU, in float32 if in less; a view of a tensor that lies there."""
    return wide(tensor.detach()).cpu().numpy()


def from_numpy(array: np.ndarray, like: Tensor | torch.device) -> Tensor:
    """The array as a tensor on the device of ``like``; a view of it on the CPU."""
    device = like if isinstance(like, torch.device) else like.device
    return torch.from_numpy(array).to(device)


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b for 2-D tensors, infinite or NaN where it overflows."""
    if a.device.type != "cpu" or a.numel() * b.shape[-1] < LARGE:
        return torch.matmul(a, b, out=out)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named by its readers
        result = np.matmul(a.numpy(), b.numpy(), out=None if out is None else out.numpy())
    return torch.from_numpy(result)


def product(a: Float[np.ndarray, "n k"], b: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
    """``matmul`` of arrays: NumPy's own threads would stay busy beside those that sort ranks."""
    return matmul(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def eigh(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues (ascending) and orthonormal eigenvectors (columns) of a symmetric matrix.

    Rows of zeros, such as those of dead inputs, are eigenvectors and left out. The rest is LAPACK's
    divide and conquer: as fast as MRRR on the spectra met here, and orthogonal to working precision
    in clusters, where MRRR is not. Peak memory: 3 n² doubles beside the input.

    Raises:
        DecompositionError: no convergence.
    """
    with spending(object(), DECOMPOSE):
        if matrix.device.type != "cpu":
            return _elsewhere(matrix, lambda m: tuple(torch.linalg.eigh(m)), _eigh_on_cpu)
        return _eigh(matrix)


def _eigh(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    whole = to_numpy(matrix)
    alive = np.asarray(whole.any(axis=1))
    try:
        if alive.all():
            values, vectors = _decomposed(whole.copy())
        else:
            values, vectors = _with_zeros(*_decomposed(whole[np.ix_(alive, alive)]), alive)
    except (scipy.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise _no_convergence(matrix) from error
    return torch.from_numpy(values), torch.from_numpy(vectors)


def _with_zeros(
    values: Float[np.ndarray, " m"],
    vectors: Float[np.ndarray, "m m"],
    alive: Bool[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """An eigendecomposition of the rows that are ``alive``, with the eigenvalue 0 of the others."""
    size, dead = len(alive), np.flatnonzero(~alive)
    first = int(np.searchsorted(values, 0.0))
    null = np.arange(first, first + len(dead))
    whole = np.zeros((size, size), order="F")
    whole[np.ix_(alive, np.delete(np.arange(size), null))] = vectors
    whole[dead, null] = 1.0
    return np.insert(values, first, np.zeros(len(dead))), whole


def _decomposed(
    work: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """Of a C-ordered matrix that may be overwritten."""
    # a symmetric C-ordered matrix is its own Fortran-ordered transpose: LAPACK overwrites it
    if len(work) < STAGED:
        values, vectors = torch.linalg.eigh(torch.from_numpy(work))
        return values.numpy(), vectors.numpy()
    # the stages of LAPACK's own driver, but for the last one
    scale = 2.0 ** float(np.frexp(max(work.max(), -work.min()))[1])
    work /= scale
    reduce, most, solve = (getattr(lapack, name) for name in ("dsytrd", "dsytrd_lwork", "dstevd"))
    space = int(most(len(work), lower=1)[0])
    reflectors, diagonal, beside, tau, _ = reduce(work.T, lower=1, lwork=space, overwrite_a=1)
    values, vectors, failed = solve(diagonal, beside)
    if failed:
        raise scipy.linalg.LinAlgError
    _reflect(vectors, reflectors, tau)
    return values * scale, vectors


def _reflect(
    vectors: Float[np.ndarray, "n n"],
    reflectors: Float[np.ndarray, "n n"],
    tau: Float[np.ndarray, " n-1"],
) -> None:
    """vectors ← H_1 H_2 … H_{n−1} vectors, with H_i = I − τ_i v_i v_iᵀ as ``dsytrd`` leaves them.

    A panel of reflections is I − V T Vᵀ, where T⁻¹ is the upper triangle of VᵀV with 1/τ on its
    diagonal (Puglisi 1992). Wide panels multiply a third faster than LAPACK's narrow ones.
    """
    # PyTorch alone, which adds to a part of a matrix in place
    rows, known, own = (torch.from_numpy(one) for one in (vectors.T, reflectors, tau))
    for start in reversed(range(0, len(own), REFLECTIONS)):
        t = own[start : start + REFLECTIONS]
        v = known[start + 1 :, start : start + len(t)]
        v[: len(t)] = v[: len(t)].tril(-1) + torch.eye(len(t), dtype=v.dtype)
        v[:, t == 0.0] = 0.0  # H_i = I
        inverse = (v.T @ v).triu(1) + torch.where(t == 0.0, 1.0, 1.0 / t).diag()
        for some in rows[:, start + 1 :].split(VECTORS):
            along = torch.linalg.solve_triangular(inverse.T, some @ v, upper=False, left=False)
            some.addmm_(along, v.T, alpha=-1.0)


def add_squares(
    matrix: Float[Tensor, "n n"], vectors: Float[Tensor, "n k"], weights: Float[Tensor, " k"]
) -> None:
    """matrix ← matrix + V diag(w) Vᵀ, half of it multiplied and the other half mirrored."""
    for start in range(0, len(matrix), ROWS):
        own, below = slice(start, start + ROWS), slice(start + ROWS, None)
        scaled = vectors[own] * weights
        matrix[own, start:].addmm_(scaled, vectors[start:].T)
        matrix[below, own] = matrix[own, below].T


def solve_positive(matrix: Float[Tensor, "n n"], v: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """matrix⁻¹ v of a symmetric positive definite matrix, by Cholesky; the matrix is overwritten.

    Raises:
        DampingError: it is not positive definite to working precision.
    """
    try:
        if matrix.device.type != "cpu":
            return torch.cholesky_solve(v, torch.linalg.cholesky(matrix))
        factor = scipy.linalg.cho_factor(to_numpy(matrix).T, overwrite_a=True, check_finite=False)
        return torch.from_numpy(scipy.linalg.cho_solve(factor, to_numpy(v), check_finite=False))
    except (scipy.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise DampingError(
            "the damped curvature is not positive definite: use a larger damping, or a policy that "
            "leaves no negative eigenvalue (negative='absolute')"
        ) from error


def eigvalsh(matrix: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """Eigenvalues (ascending) of a symmetric matrix.

    Raises:
        DecompositionError: no convergence.
    """
    if matrix.device.type != "cpu":
        return _elsewhere(matrix, torch.linalg.eigvalsh, _eigvalsh_on_cpu)
    try:
        values = scipy.linalg.eigvalsh(to_numpy(matrix), driver="evd", check_finite=False)
    except scipy.linalg.LinAlgError as error:
        raise _no_convergence(matrix) from error
    return torch.from_numpy(values)


def _elsewhere(matrix: Tensor, there: Callable[[Tensor], Result], here: Callable) -> Result:
    """``there`` on the matrix's own device, or ``here`` on the CPU where it does not fit."""
    try:
        return there(matrix)
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise _no_convergence(matrix) from error
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return here(matrix)


def _eigh_on_cpu(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = eigh(matrix.cpu())
    return values.to(matrix.device), vectors.to(matrix.device)


def _eigvalsh_on_cpu(matrix: Tensor) -> Tensor:
    return eigvalsh(matrix.cpu()).to(matrix.device)


def _no_convergence(matrix: Tensor) -> DecompositionError:
    return DecompositionError(
        f"the eigendecomposition of a {len(matrix)} × {len(matrix)} matrix did not converge "
        f"(largest entry {float(matrix.abs().max()):.3g}, finite: {bool(matrix.isfinite().all())})"
    )
