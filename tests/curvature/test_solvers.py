"""MINRES and conjugate gradients against SciPy's and a direct solve."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from decomposition.curvature.cg import cg
from decomposition.curvature.minres import minres
from decomposition.curvature.solution import SolverError, Stopping
from decomposition.errors import DecompositionError

SIZE, COLUMNS = 60, 4


def matrix(indefinite: bool, seed: int = 0) -> np.ndarray:
    """Eigenvalues over three decades, of both signs if indefinite."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))
    values = np.geomspace(1e-2, 10.0, SIZE)
    if indefinite:
        values = values * rng.choice([-1.0, 1.0, 1.0], SIZE)
    return (vectors * values) @ vectors.T


def sides(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SIZE, COLUMNS))


def near(a: np.ndarray, seed: int = 2):
    """(|A| + noise)⁻¹: a positive definite preconditioner that is close, not equal."""
    values, vectors = np.linalg.eigh(a)
    rng = np.random.default_rng(seed)
    inverse = (vectors / (np.abs(values) * rng.uniform(0.5, 2.0, SIZE))) @ vectors.T
    return inverse


def of(a: np.ndarray):
    tensor = torch.from_numpy(a)
    return lambda v: tensor @ v


CASES = [(minres, True), (minres, False), (cg, False)]


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize(("method", "indefinite"), CASES)
def test_solves_to_its_tolerance(method, indefinite: bool, preconditioned: bool) -> None:
    a, b = matrix(indefinite), sides()
    m = of(near(a)) if preconditioned else None
    found = method(of(a), torch.from_numpy(b), m, Stopping(1e-10))
    residual = np.linalg.norm(b - a @ found.x.numpy(), axis=0) / np.linalg.norm(b, axis=0)
    assert found.converged
    np.testing.assert_allclose(found.residuals.numpy(), residual, rtol=1e-3, atol=1e-12)
    np.testing.assert_allclose(found.x.numpy(), np.linalg.solve(a, b), rtol=0, atol=1e-6)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize(("method", "indefinite"), CASES)
def test_steps_are_those_of_scipy(method, indefinite: bool, preconditioned: bool) -> None:
    a, b = matrix(indefinite), sides()
    inverse = near(a)
    theirs = getattr(scipy.sparse.linalg, method.__name__)
    steps = 7
    found = method(
        of(a),
        torch.from_numpy(b),
        of(inverse) if preconditioned else None,
        Stopping(1e-14, steps, required=False),
    )
    for column in range(COLUMNS):
        options = {"maxiter": steps, "rtol": 1e-14}
        x, _ = theirs(a, b[:, column], M=inverse if preconditioned else None, **options)
        np.testing.assert_allclose(found.x[:, column].numpy(), x, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize(("method", "indefinite"), CASES)
def test_the_history_is_that_of_the_true_residual(
    method, indefinite: bool, preconditioned: bool
) -> None:
    a, b = matrix(indefinite), torch.from_numpy(sides())
    m = of(near(a)) if preconditioned else None
    for steps in (1, 2, 5, 9):
        found = method(of(a), b, m, Stopping(1e-14, steps, required=False))
        torch.testing.assert_close(found.history[-1], found.residuals, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("method", "indefinite"), CASES)
def test_columns_do_not_know_of_each_other(method, indefinite: bool) -> None:
    a, b = matrix(indefinite), torch.from_numpy(sides())
    b[:, 1] *= 1e6
    b[:, 2] = 0.0
    together = method(of(a), b)
    for column in range(COLUMNS):
        alone = method(of(a), b[:, [column]])
        gap = torch.linalg.norm(together.x[:, [column]] - alone.x) / torch.linalg.norm(b[:, column])
        assert float(gap.nan_to_num()) < 2 * 1e-8 / 1e-2  # tolerance over the smallest |eigenvalue|
    assert float(together.residuals[2]) == 0.0


def test_products_are_counted() -> None:
    a, seen = matrix(True), []
    tensor = torch.from_numpy(a)

    def apply(v: torch.Tensor) -> torch.Tensor:
        seen.append(v.shape[1])
        return tensor @ v

    found = minres(apply, torch.from_numpy(sides()))
    assert found.products == sum(seen)


def test_the_inverse_as_preconditioner_needs_one_step() -> None:
    a = matrix(False)
    inverse = of(np.linalg.inv(a))
    for method in (minres, cg):
        assert method(of(a), torch.from_numpy(sides()), inverse, Stopping(1e-9)).iterations == 1


def test_cg_refuses_an_indefinite_matrix() -> None:
    with pytest.raises(SolverError, match=r"not positive definite; use MINRES"):
        cg(of(matrix(True)), torch.from_numpy(sides()))


@pytest.mark.parametrize("method", [minres, cg])
def test_an_indefinite_preconditioner_is_refused(method) -> None:
    with pytest.raises(SolverError, match=r"the preconditioner is not positive definite"):
        method(of(matrix(False)), torch.from_numpy(sides()), of(matrix(True)))


@pytest.mark.parametrize("method", [minres, cg])
def test_too_few_iterations_are_an_error_or_said(method) -> None:
    a, b = matrix(False), torch.from_numpy(sides())
    with pytest.raises(SolverError, match=r"relative residual of .* after 3 iterations"):
        method(of(a), b, None, Stopping(1e-8, 3))
    assert not method(of(a), b, None, Stopping(1e-8, 3, required=False)).converged


def test_a_singular_system_without_a_solution_is_an_error() -> None:
    a = np.diag(np.r_[0.0, np.arange(1.0, SIZE)])
    with pytest.raises(SolverError, match=r"use a larger damping"):
        minres(of(a), torch.from_numpy(sides()), None, Stopping(1e-8, 200))


def test_a_tolerance_outside_its_range_is_named() -> None:
    with pytest.raises(DecompositionError, match=r"tolerance of a solver .* got 0"):
        Stopping(0.0)
