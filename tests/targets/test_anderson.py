"""Anderson acceleration: exact on linear problems of low rank, and honest about failure."""

from __future__ import annotations

import torch
from torch import Tensor

from decomposition.targets.anderson import anderson


def linear(matrices: Tensor, right: Tensor):
    def residual(z: Tensor, which: Tensor) -> Tensor:
        return right[which] - (matrices[which] @ z[..., None])[..., 0]

    return residual


def problems(m: int, n: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(m, n, rank, generator=generator, dtype=torch.float64)
    right = torch.randn(m, n, generator=generator, dtype=torch.float64)
    eye = torch.eye(n, dtype=torch.float64)
    return eye + 0.1 * u @ u.mT, right, torch.zeros(m, n, dtype=torch.float64)


def test_a_perturbation_of_rank_r_takes_r_plus_two_steps() -> None:
    """The plain iteration would diverge: the perturbation is larger than the identity."""
    matrices, right, start = problems(5, 12, 3)
    found = anderson(linear(matrices, right), start, right.norm(dim=1), 1e-10, limit=5)
    assert bool((found.residual <= 1e-10).all())
    expected = torch.linalg.solve(matrices, right)
    torch.testing.assert_close(found.points, expected, rtol=0, atol=1e-8)


def test_a_diverging_problem_is_given_up_and_costs_the_others_nothing() -> None:
    matrices, right, start = problems(3, 6, 2)

    def residual(z: Tensor, which: Tensor) -> Tensor:
        r = linear(matrices, right)(z, which)
        r[which == 1] = (1.0 + z[which == 1].square()) * 3.0  # no fixed point at all
        return r

    found = anderson(residual, start, right.norm(dim=1), 1e-10)
    assert bool(torch.isinf(found.residual[1]))
    assert bool((found.residual[[0, 2]] <= 1e-10).all())


def test_a_limit_reports_the_residual_where_it_stopped() -> None:
    matrices, right, start = problems(4, 12, 5)
    found = anderson(linear(matrices, right), start, right.norm(dim=1), 1e-10, limit=3)
    actual = linear(matrices, right)(found.points, torch.arange(4)).norm(dim=1)
    torch.testing.assert_close(found.residual, actual / right.norm(dim=1), rtol=1e-12, atol=0)
    assert bool((found.residual > 1e-10).all())


def test_what_is_solved_already_stays() -> None:
    matrices, right, _ = problems(3, 6, 2)
    exact = torch.linalg.solve(matrices, right)
    found = anderson(linear(matrices, right), exact, right.norm(dim=1), 1e-10)
    torch.testing.assert_close(found.points, exact, rtol=0, atol=0)
