"""A policy of a curvature's own: it overrules the caller's, and the matrix stays what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.curvature import BlockDiagonal, DenseCurvature, UnderPolicy
from decomposition.damping import POLICIES, Truncate
from decomposition.errors import DampingError, DecompositionError

MU = np.array([-2.0, -0.3, -0.04, 0.0, 0.5, 3.0])


def _curvature() -> tuple[DenseCurvature, np.ndarray]:
    v = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    return DenseCurvature(torch.from_numpy(v @ np.diag(MU) @ v.T), {"a": slice(0, 2)}), v


@pytest.mark.parametrize("damping", [0.01, 0.1, 5.0])
def test_truncation_by_hand(damping: float) -> None:
    """Inverse eigenvalues 1/(μ + λ) above ε and 0 below, after damping."""
    matrix, v = _curvature()
    damped = MU + damping
    inverse = np.where(damped > 1e-6, 1 / damped, 0.0)
    found = UnderPolicy(matrix, Truncate()).solve(torch.eye(6), damping)
    np.testing.assert_allclose(found, v @ np.diag(inverse) @ v.T, atol=1e-11 * inverse.max())


@pytest.mark.parametrize("asked", POLICIES)
def test_the_callers_policy_is_overruled(asked: str) -> None:
    matrix, _ = _curvature()
    v = torch.ones(6, dtype=torch.float64)
    own = UnderPolicy(matrix, "clip").solve(v, 0.1, negative=asked)
    torch.testing.assert_close(own, matrix.solve(v, 0.1, negative="clip"), rtol=0, atol=0)


def test_the_matrix_and_its_basis_are_those_of_the_curvature() -> None:
    matrix, _ = _curvature()
    wrapped = UnderPolicy(matrix, "clip")
    v = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(wrapped.dense(), matrix.dense())
    torch.testing.assert_close(wrapped.matvec(v), matrix.matvec(v))
    torch.testing.assert_close(wrapped.eigenvalues(), matrix.eigenvalues())
    panel = slice(1, 3)
    torch.testing.assert_close(wrapped.basis_columns(panel), matrix.basis_columns(panel))
    assert wrapped.trace() == matrix.trace()
    assert wrapped.frobenius_norm() == matrix.frobenius_norm()
    assert wrapped.basis_key() == matrix.basis_key()
    assert wrapped.notes == ("negative eigenvalues: policy clip",)


def test_its_dense_matrix_is_the_callers_to_overwrite() -> None:
    matrix, _ = _curvature()
    UnderPolicy(matrix, "clip").dense().zero_()
    assert matrix.dense().any()


def test_its_blocks_follow_the_same_policy() -> None:
    matrix, _ = _curvature()
    block = UnderPolicy(matrix, "clip").diagonal_blocks()["a"]
    v = torch.ones(2, dtype=torch.float64)
    expected = matrix.diagonal_blocks()["a"].solve(v, 0.1, negative="clip")
    torch.testing.assert_close(block.solve(v, 0.1), expected)


def test_blocks_of_several_policies_are_refused() -> None:
    matrix, _ = _curvature()
    with pytest.raises(DecompositionError, match="give it to the whole curvature"):
        BlockDiagonal({"a": UnderPolicy(matrix, "clip"), "b": matrix})


def test_blocks_of_one_policy_hand_it_on() -> None:
    matrix, _ = _curvature()
    both = BlockDiagonal({"a": UnderPolicy(matrix, "clip"), "b": UnderPolicy(matrix, "clip")})
    v = torch.ones(12, dtype=torch.float64)
    expected = matrix.solve(v[:6], 0.1, negative="clip")
    torch.testing.assert_close(both.solve(v, 0.1), torch.cat([expected, expected]))


def test_nothing_left_is_an_error() -> None:
    negative = DenseCurvature(-torch.eye(3))
    with pytest.raises(DampingError, match=r"no eigenvalue is left at damping=0\.5"):
        UnderPolicy(negative, Truncate()).solve(torch.ones(3), 0.5)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(DampingError, match="'abs'"):
        UnderPolicy(_curvature()[0], "abs")
