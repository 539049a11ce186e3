"""Functions of a matrix on vectors, from its products alone."""

from __future__ import annotations

import pytest
import torch

from decomposition.curvature import DenseCurvature
from decomposition.curvature.krylov import krylov_spaces
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.solution import SolverError
from decomposition.damping import POLICIES, Truncate
from decomposition.device import CPU

SIZE, COLUMNS = 60, 3
DAMPINGS = (0.3, 3.0, 30.0)


def matrix(seed: int = 0) -> torch.Tensor:
    """A spectrum like that of a Hessian: a few large eigenvalues, many small of both signs."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))
    mu = 0.2 * torch.randn(SIZE, generator=generator, dtype=torch.float64)
    mu[:5] = torch.tensor([100.0, 40.0, 10.0, 5.0, 3.0], dtype=torch.float64)
    return (q * mu) @ q.T


class Counted:
    """The products of a matrix."""

    notes: tuple[str, ...] = ()
    device = CPU

    def __init__(self, c: torch.Tensor) -> None:
        self.c, self.size, self.count = c, len(c), 0

    def matvec(self, v: torch.Tensor) -> torch.Tensor:
        self.count += v.shape[1]
        return self.c @ v


def sides() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(SIZE, COLUMNS, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("policy", [*POLICIES, Truncate(1e-3)])
def test_a_full_space_gives_every_policy_exactly(policy) -> None:
    c, b = matrix(), sides()
    found = MatrixFreeCurvature(Counted(c), krylov_steps=SIZE, change=1e-13)
    exact = DenseCurvature(c)
    for damping in DAMPINGS:
        expected = exact.solve(b, damping, policy)
        got = found.solutions(b, [damping], policy).x[0]
        assert torch.allclose(got, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("policy", ["absolute", "clip", "shift", "signed"])
def test_a_solution_that_is_taken_is_as_near_as_it_says(policy: str) -> None:
    c, b = matrix(), sides()
    found = MatrixFreeCurvature(Counted(c), krylov_steps=25).solutions(b, DAMPINGS, policy)
    for x, change, damping in zip(found.x, found.error, DAMPINGS, strict=True):
        expected = DenseCurvature(c).solve(b, damping, policy)
        error = (x - expected).norm(dim=0) / expected.norm(dim=0)
        taken = change <= 1e-2
        assert taken.all() or damping == DAMPINGS[0]
        assert (error[taken] < 5e-2).all()


def test_dampings_share_their_products() -> None:
    c, b = matrix(), sides()
    one, many = Counted(c), Counted(c)
    alone = MatrixFreeCurvature(one).solutions(b, [DAMPINGS[0]])
    together = MatrixFreeCurvature(many).solutions(b, DAMPINGS)
    assert one.count == many.count
    assert torch.equal(alone.x[0], together.x[0])


@pytest.mark.parametrize("start", ["random", "dominant"])
def test_the_basis_is_orthonormal_to_rounding(start: str) -> None:
    """Without it Ritz values of converged ends would come again and again."""
    c = matrix()
    b = sides() if start == "random" else torch.linalg.eigh(c)[1][:, -1:] + 1e-13 * sides()
    spaces = krylov_spaces(lambda x: c @ x, b, 40)
    gram = torch.bmm(spaces.basis, spaces.basis.mT)
    kept = torch.diagonal(gram, dim1=1, dim2=2)
    expected = torch.diag_embed(torch.where(kept > 0.5, 1.0, 0.0).double())
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-12)
    found = torch.bmm(spaces.basis @ c, spaces.basis.mT)
    ritz = spaces.ritz()
    t = (ritz.rotation * ritz.values[:, None]) @ ritz.rotation.mT
    torch.testing.assert_close(found, t, rtol=0, atol=1e-9 * float(c.abs().max()))


def test_products_are_told_as_they_are_made() -> None:
    """What a progress bar shows adds up to what the record says, and stays within its total."""
    curvature, told = MatrixFreeCurvature(Counted(matrix())), []
    with curvature.watched(told.append):
        curvature.solutions(sides(), DAMPINGS)
    assert len(told) > 1
    assert sum(told) == curvature.record[0].products
    assert sum(told) <= curvature.most_products(sides().shape[1])


def test_an_invariant_space_is_found_and_exact() -> None:
    c = matrix()
    mu, v = torch.linalg.eigh(c)
    b = v[:, -2:] @ torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    spaces = krylov_spaces(lambda x: c @ x, b, 40)
    x, change = spaces.apply(lambda theta: 1.0 / theta)
    assert spaces.steps <= 4
    assert float(change) == 0.0
    assert torch.allclose(c @ x, b, atol=1e-9)
    assert float(mu[-1]) == pytest.approx(100.0)


def test_zero_vectors_have_zero_solutions() -> None:
    b = sides()
    b[:, 1] = 0.0
    found = MatrixFreeCurvature(Counted(matrix()), krylov_steps=SIZE).solutions(b, [3.0])
    assert torch.equal(found.x[0, :, 1], torch.zeros(SIZE, dtype=torch.float64))
    assert (found.x[0, :, [0, 2]].norm(dim=0) > 0).all()


def test_a_space_that_is_too_small_has_no_solution() -> None:
    curvature = MatrixFreeCurvature(Counted(matrix()), krylov_steps=4)
    found = curvature.solutions(sides(), [1e-3, 1e6])
    assert found.x[0].isnan().all()
    assert found.x[1].isfinite().all()
    assert len(found.failures) == 1
    with pytest.raises(SolverError, match="use a larger damping"):
        curvature.solve(sides(), 1e-3, "absolute")


def test_direct_solutions_leave_out_what_is_singular() -> None:
    c = DenseCurvature(torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)))
    found = c.solutions(torch.eye(2, dtype=torch.float64), [1.0, 2.0], "signed")
    assert found.x[0].isnan().all()
    assert torch.equal(found.x[1], c.solve(torch.eye(2, dtype=torch.float64), 2.0, "signed"))
    assert "singular" in found.failures[0]
