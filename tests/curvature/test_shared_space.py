"""One Krylov space of many vectors."""

from __future__ import annotations

import pytest
import torch

from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.shared_space import SharedSpace, shared_space
from decomposition.device import CPU

SIZE = 120


def matrix() -> torch.Tensor:
    """Eigenvalues over eight decades, some of them negative."""
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))
    mu = torch.cat([torch.logspace(0, -8, 90), -torch.logspace(-3, -8, 30)]).double()
    return (q * mu) @ q.T


def vectors(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(SIZE, count, generator=generator, dtype=torch.float64)


def space(b: torch.Tensor, most: int) -> SharedSpace:
    c = matrix()
    return shared_space(lambda v: c @ v, b, most)


def solved(b: torch.Tensor, damping: float) -> torch.Tensor:
    mu, v = torch.linalg.eigh(matrix())
    return (v / (mu.abs() + damping)) @ (v.T @ b)


def inverse(damping: float):
    return lambda theta: 1.0 / (theta.abs() + damping)


@pytest.mark.parametrize("most", [20, 60, 400])
def test_the_basis_is_orthonormal_and_holds_the_vectors(most: int) -> None:
    b = vectors(7)
    found = space(b, most)
    v = found.basis
    assert len(v) == min(most, SIZE) == found.projection.dimensions
    torch.testing.assert_close(v @ v.T, torch.eye(len(v), dtype=v.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close(v.T @ (v @ b), b)


def test_ritz_values_are_those_of_the_projection() -> None:
    found = space(vectors(5), 40)
    expected = torch.linalg.eigvalsh(found.basis @ matrix() @ found.basis.T)
    torch.testing.assert_close(found.projection.now.values, expected, rtol=0, atol=1e-12)


def test_the_whole_space_is_exact_and_says_so() -> None:
    b = vectors(7)
    found = space(b, SIZE)
    torch.testing.assert_close(found.apply(inverse(1e-4)), solved(b, 1e-4), rtol=1e-9, atol=1e-9)
    assert (found.projection.change(inverse(1e-4)) == 0).all()


@pytest.mark.parametrize("damping", [1.0, 0.1, 1e-2])
def test_the_change_is_of_the_size_of_the_error(damping: float) -> None:
    b = vectors(6)
    found = space(b, 72)
    expected = solved(b, damping)
    error = (found.apply(inverse(damping)) - expected).norm(dim=0) / expected.norm(dim=0)
    assert (error < 5 * found.projection.change(inverse(damping)) + 1e-12).all()


def test_vectors_profit_from_each_other() -> None:
    """The same products for each of them, all in one space or each in its own."""
    b = vectors(8)
    expected = solved(b, 1e-2)
    together = space(b, 64).apply(inverse(1e-2))
    alone = torch.cat([space(b[:, [i]], 8).apply(inverse(1e-2)) for i in range(8)], 1)
    assert (together - expected).norm() < 0.2 * (alone - expected).norm()


def test_zero_and_dependent_vectors_take_no_dimension() -> None:
    b = vectors(4)
    b[:, 1], b[:, 2] = 0.0, 3.0 * b[:, 0]
    found = space(b, SIZE)
    assert len(found.projection.start) == 2
    torch.testing.assert_close(found.apply(inverse(0.1)), solved(b, 0.1), rtol=1e-9, atol=1e-9)
    nothing = space(torch.zeros(SIZE, 2, dtype=torch.float64), SIZE)
    assert torch.equal(nothing.apply(inverse(0.1)), torch.zeros(SIZE, 2, dtype=torch.float64))


def test_an_invariant_space_ends_early_and_is_exact() -> None:
    _, v = torch.linalg.eigh(matrix())
    b = v[:, -3:] @ vectors(2)[:3]
    found = space(b, SIZE)
    assert found.projection.dimensions <= 4
    assert (found.projection.change(inverse(1e-6)) == 0).all()
    torch.testing.assert_close(found.apply(inverse(1e-6)), solved(b, 1e-6), rtol=1e-6, atol=1e-6)


def test_a_space_serves_the_span_of_its_vectors_alone() -> None:
    b = vectors(5)
    found = space(b, 60).in_single_precision()
    same = found.of(b[:, 1:3] + b[:, [0]])
    assert same is not None
    whole = space(b, 60).apply(inverse(0.1))
    torch.testing.assert_close(
        same.apply(inverse(0.1)), whole[:, 1:3] + whole[:, [0]], rtol=1e-4, atol=1e-4
    )
    assert found.of(vectors(6)[:, [5]]) is None


def test_a_basis_in_single_precision_has_its_rounding() -> None:
    c, b = matrix(), vectors(6)
    expected = solved(b, 0.1)
    double = shared_space(lambda v: c @ v, b, 60)
    single = shared_space(lambda v: c @ v, b, 60, dtype=torch.float32)
    errors = [(one.apply(inverse(0.1)) - expected).norm() for one in (single, double)]
    assert single.basis.dtype == torch.float32
    assert errors[0] < 1.5 * errors[1] + 1e-5 * expected.norm()


class Counted:
    """The products of a matrix."""

    notes: tuple[str, ...] = ()
    device, size = CPU, SIZE

    def __init__(self) -> None:
        self.c, self.count = matrix(), 0

    def matvec(self, v: torch.Tensor) -> torch.Tensor:
        self.count += v.shape[1]
        return self.c @ v


def test_a_kept_space_solves_the_same_vectors_without_a_product() -> None:
    product, b = Counted(), vectors(6)
    curvature = MatrixFreeCurvature(product, keep=True, change=1e-9)
    first = curvature.solutions(b, [0.1, 1.0], "absolute")
    before = product.count
    again = curvature.solutions(b[:, 2:4], [0.3], "absolute")
    assert product.count == before
    torch.testing.assert_close(again.x[0], solved(b[:, 2:4], 0.3), rtol=1e-4, atol=1e-4)
    assert not first.failures
    curvature.solutions(vectors(7)[:, [6]], [0.3], "absolute")
    assert product.count > before


def test_vectors_share_no_space_that_is_too_small_for_them() -> None:
    """Memory for 12 dimensions: two of eight vectors at a time, and so says the bar."""
    product, b = Counted(), vectors(8)
    curvature = MatrixFreeCurvature(product, space_bytes=12 * 8 * SIZE)
    found = curvature.solutions(b, [10.0], "absolute")
    assert product.count <= curvature.most_products(8) == 4 * 12
    torch.testing.assert_close(found.x[0], solved(b, 10.0), rtol=1e-2, atol=1e-4)
