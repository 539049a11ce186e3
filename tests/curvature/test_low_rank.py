"""Leading eigenpairs as a curvature and as a preconditioner."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature.low_rank import EigenpairCurvature, leading_eigenpairs
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import ggn_product
from decomposition.errors import DecompositionError
from tests import cases


def sides(size: int) -> torch.Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_it_is_the_matrix_it_says() -> None:
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(np.linalg.qr(rng.standard_normal((20, 4)))[0])
    values = torch.tensor([2.0, 3.0, 5.0, 8.0], dtype=torch.float64)
    found = EigenpairCurvature(values, vectors, 1.0)
    matrix = torch.eye(20, dtype=torch.float64) + (vectors * (values - 1.0)) @ vectors.T
    v = sides(20)
    torch.testing.assert_close(found.matvec(v), matrix @ v)
    damped = matrix + 0.5 * torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(found.solve(v, 0.5), torch.linalg.solve(damped, v))
    torch.testing.assert_close(found.eigenvalues(), torch.linalg.eigvalsh(matrix))
    torch.testing.assert_close(found.from_basis(found.to_basis(v)), v)


def test_the_largest_eigenvalues_are_found() -> None:
    problem = cases.tanh()
    exact = build_chain(problem)["ggn"].eigenvalues()[-3:]
    found = leading_eigenpairs(ggn_product(problem), 30).eigenvalues()[-3:]
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0.0)


def test_it_saves_products_and_changes_no_answer() -> None:
    problem = cases.tanh()
    damping = 1e-4 * float(build_chain(problem)["ggn"].eigenvalues()[-1])
    v = sides(problem.num_parameters)
    helped, plain = (
        MatrixFreeCurvature(ggn_product(problem), m, definite=True, tolerance=1e-11)
        for m in (leading_eigenpairs(ggn_product(problem), 30), None)
    )
    error = torch.linalg.norm(helped.solve(v, damping) - plain.solve(v, damping))
    assert float(error / torch.linalg.norm(v)) < 1e-6
    assert helped.record[0].products < 0.7 * plain.record[0].products


def test_no_rank_is_refused() -> None:
    with pytest.raises(DecompositionError, match=r"rank must be a whole number >= 1, got 0"):
        leading_eigenpairs(ggn_product(cases.tanh()), 0)
