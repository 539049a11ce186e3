"""Canonical Kronecker eigenbases: deterministic, signed, and honest about repeated eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import EKFAC, KFAC, build_chain
from decomposition.curvature.factor_basis import factor_basis
from decomposition.curvature.factors import kronecker_factors
from decomposition.problem import Problem
from tests import cases, general


def _rotation(d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


def test_factors_are_the_expectations_that_define_them(problem: Problem) -> None:
    """tr(A) tr(S) and A, S against sums over single examples."""
    x, y = problem.train
    alone = [
        kronecker_factors(
            Problem(problem.model, problem.loss, (x[i : i + 1], y[i : i + 1]), problem.query)
        )
        for i in range(len(x))
    ]
    for name, (a, s) in kronecker_factors(problem).items():
        for together, index in ((a, 0), (s, 1)):
            mean = torch.stack([factors[name][index] for factors in alone]).mean(0)
            torch.testing.assert_close(together, mean, rtol=1e-10, atol=1e-12)


def test_basis_diagonalises_the_factor() -> None:
    q = _rotation(6, 0)
    factor = q @ torch.diag(torch.tensor([0.0, 0.1, 0.5, 0.5, 2.0, 3.0]).double()) @ q.T
    basis = factor_basis(factor)
    rebuilt = basis.vectors @ torch.diag(basis.values) @ basis.vectors.T
    torch.testing.assert_close(rebuilt, factor, rtol=0, atol=1e-12)


def test_repeated_eigenvalues_are_detected() -> None:
    q = _rotation(5, 1)
    factor = q @ torch.diag(torch.tensor([0.1, 1.0, 1.0, 1.0, 2.0]).double()) @ q.T
    assert factor_basis(factor).degenerate == ((1, 4),)


def test_a_null_space_is_not_called_degenerate() -> None:
    factor = torch.diag(torch.tensor([0.0, 0.0, 1.0, 2.0]).double())
    assert factor_basis(factor).degenerate == ()
    assert factor_basis(factor).null == (2,)


@pytest.mark.parametrize(("rung", "said"), [(EKFAC, True), (KFAC, False)])
def test_a_null_space_with_curvature_is_reported(rung: type, said: bool) -> None:
    """Means of 8 examples span no basis of 19 inputs, but patches do: there are many EK-FACs."""
    problem = general.conv2d_strided()
    assert not any("all the same" in note for note in rung()(problem).notes)
    notes = rung(sharing="reduce")(problem).notes
    message = "layer 0: the input factor is zero in 11 directions in which there is curvature all"
    assert any(note.startswith(message) for note in notes) == said


@pytest.mark.parametrize("seed", range(5))
def test_canonical_basis_depends_on_the_eigenspace_alone(seed: int) -> None:
    """The same degenerate matrix, disturbed below the tolerance, keeps its basis."""
    q = _rotation(6, 2)
    values = torch.tensor([0.2, 1.0, 1.0, 1.0, 3.0, 3.0]).double()
    clean = q @ torch.diag(values) @ q.T
    inner = torch.block_diag(torch.eye(1), _rotation(3, seed), _rotation(2, seed + 9)).double()
    rotated = (q @ inner) @ torch.diag(values) @ (q @ inner).T
    torch.testing.assert_close(
        factor_basis((rotated + rotated.T) / 2).vectors,
        factor_basis(clean).vectors,
        rtol=0,
        atol=1e-7,
    )


def test_largest_entry_of_every_vector_is_positive() -> None:
    vectors = factor_basis(
        _rotation(7, 3) @ torch.diag(torch.arange(7.0).double()) @ _rotation(7, 3).T
    ).vectors
    pivots = vectors.abs().argmax(0)
    assert bool((vectors.gather(0, pivots[None]) > 0).all())


def test_whitened_inputs_are_reported_on_the_rung() -> None:
    chain = build_chain(cases.whitened())
    assert any("layer 0" in note and "input factor" in note for note in chain["ekfac"].notes)
    assert not build_chain(cases.gelu())["ekfac"].notes


def test_whitened_problem_gives_one_ekfac_whatever_the_order_of_examples() -> None:
    problem = cases.whitened()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(problem.train[0])))
    shuffled = Problem(
        problem.model, problem.loss, tuple(part[order] for part in problem.train), problem.query
    )
    torch.testing.assert_close(
        build_chain(shuffled)["ekfac"].dense(),
        build_chain(problem)["ekfac"].dense(),
        rtol=0,
        atol=1e-9,
    )
