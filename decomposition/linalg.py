"""Float64 matrix products and symmetric eigenproblems on the fastest library at hand.

On the CPU NumPy's and SciPy's BLAS/LAPACK serve through zero-copy views: on AMD processors
OpenBLAS multiplies a third faster than the MKL inside PyTorch, on Intel they are on a par.
On other devices PyTorch's own kernels are used; where an eigenproblem does not fit into a device's
memory, it is solved on the CPU. Arrays and tensors meet here alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DampingError, DecompositionError
from decomposition.inputs import wide
from decomposition.ledger import DECOMPOSE, spending
from decomposition.memory import out_of_memory

Result = TypeVar("Result")


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The values on the CPU, in float32 if in less; a view of a tensor that lies there."""
    return wide(tensor.detach()).cpu().numpy()


def from_numpy(array: np.ndarray, like: Tensor | torch.device) -> Tensor:
    """The array as a tensor on the device of ``like``; a view of it on the CPU."""
    device = like if isinstance(like, torch.device) else like.device
    return torch.from_numpy(array).to(device)


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b for 2-D tensors, infinite or NaN where it overflows."""
    if a.device.type != "cpu":
        return torch.matmul(a, b, out=out)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named by its readers
        result = np.matmul(a.numpy(), b.numpy(), out=None if out is None else out.numpy())
    return torch.from_numpy(result)


def eigh(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues (ascending) and orthonormal eigenvectors (columns) of a symmetric matrix.

    LAPACK's divide and conquer (``evd``): as fast as MRRR (``evr``) on the spectra met here
    (P = 6,570: 29 s against 28 s on 2 cores) and orthogonal to working precision in clusters,
    where MRRR is not. Peak memory: 3 n² doubles beside the input.

    Raises:
        DecompositionError: no convergence.
    """
    with spending(object(), DECOMPOSE):
        if matrix.device.type != "cpu":
            return _elsewhere(matrix, lambda m: tuple(torch.linalg.eigh(m)), _eigh_on_cpu)
        return _eigh(matrix)


def _eigh(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    # A symmetric C-ordered copy is its own Fortran-ordered transpose: LAPACK overwrites it.
    work = to_numpy(matrix).copy()
    try:
        values, vectors = scipy.linalg.eigh(
            work.T, driver="evd", overwrite_a=True, check_finite=False
        )
    except scipy.linalg.LinAlgError as error:
        raise _no_convergence(matrix) from error
    return torch.from_numpy(values), torch.from_numpy(vectors)


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
