"""Identity 7: what a form answers is what its dense matrix answers, on both sides of P = N·C."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from decomposition import Problem, build_chain
from decomposition.curvature import (
    BlockDiagonal,
    Curvature,
    DenseCurvature,
    EigenpairCurvature,
    MatrixFreeCurvature,
    NotAvailableError,
    SolveCurvature,
    UnderPolicy,
)
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.products import ggn_product, hessian_product
from decomposition.problems.networks import mlp
from tests import general
from tests.cases import classification

Chain = dict[str, Curvature]


def few_parameters() -> Problem:
    """P = 43 < N·C = 72."""
    return classification(mlp((4, 5, 3), nn.Tanh, 0))


def many_parameters() -> Problem:
    """P = 115 > N·C = 36."""
    return classification(mlp((4, 14, 3), nn.Tanh, 0), n=12)


PROBLEMS = {one.__name__: one for one in (few_parameters, many_parameters, general.cnn)}
STEPS = 400
"""Krylov steps: as many as it takes."""


def _free(product, definite: bool = False) -> MatrixFreeCurvature:
    return MatrixFreeCurvature(
        product, definite=definite, krylov_steps=STEPS, change=1e-9, tolerance=1e-11
    )


def _eigenpairs(chain: Chain) -> EigenpairCurvature:
    """Four eigenpairs of G and its mean eigenvalue."""
    values, vectors = torch.linalg.eigh(chain["ggn"].dense())
    return EigenpairCurvature(values[-4:], vectors[:, -4:], float(values.mean()))


def _solver(chain: Chain) -> SolveCurvature:
    matrix = chain["ggn"].dense()

    def solve(v: torch.Tensor, damping: float) -> torch.Tensor:
        shifted = matrix + damping * torch.eye(len(matrix), dtype=torch.float64)
        return torch.linalg.solve(shifted, v)

    return SolveCurvature(len(matrix), solve, lambda v: matrix @ v)


def _mixed(problem: Problem, chain: Chain) -> BlockDiagonal:
    """The first block by its products, the others dense."""
    blocks: Chain = dict(chain["block_ggn"].diagonal_blocks())
    first = next(iter(blocks))
    blocks[first] = _free(ggn_product_of(blocks[first]), definite=True)
    return BlockDiagonal(blocks)


def ggn_product_of(block: Curvature):
    """The products of a block, as a matrix-free form has them."""

    class Products:
        size, device, notes, matvec = block.size, block.device, (), block.matvec

    return Products()


FORMS: dict[str, Callable[[Problem, Chain], Curvature]] = {
    "dense": lambda problem, chain: DenseCurvature(chain["hessian"].dense()),
    "kronecker": lambda problem, chain: chain["kfac"],
    "corrected kronecker": lambda problem, chain: chain["ekfac"],
    "dense blocks": lambda problem, chain: chain["block_ggn"],
    "mixed blocks": _mixed,
    "low rank": lambda problem, chain: _eigenpairs(chain),
    "gram": lambda problem, chain: dual_rungs(problem)[0],
    "gram blocks": lambda problem, chain: dual_rungs(problem)[1],
    "matrix-free H": lambda problem, chain: _free(hessian_product(problem)),
    "matrix-free G": lambda problem, chain: _free(ggn_product(problem), definite=True),
    "under a policy": lambda problem, chain: UnderPolicy(chain["hessian"], "clip"),
    "matrix-free under a policy": lambda problem, chain: UnderPolicy(
        _free(hessian_product(problem)), "absolute"
    ),
    "solver": lambda problem, chain: _solver(chain),
    "solver by products": lambda problem, chain: _solver(chain).by_products(),
}
POLICIES = {"under a policy": "clip", "matrix-free under a policy": "absolute"}


@cache
def made(name: str) -> tuple[Problem, Chain]:
    problem = PROBLEMS[name]()
    return problem, build_chain(problem)


@pytest.fixture(params=[(problem, form) for problem in PROBLEMS for form in FORMS], ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[Curvature, DenseCurvature, str]:
    """A form, the dense matrix that it stands for, and the policy that it follows."""
    name, form = request.param
    problem, chain = made(name)
    if (
        form.startswith("gram")
        and problem.num_examples * problem.num_outputs > problem.num_parameters
    ):
        pytest.skip("G itself is the smaller matrix")
    curvature = FORMS[form](problem, chain)
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    matrix = curvature.matvec(eye)
    return curvature, DenseCurvature(0.5 * (matrix + matrix.T)), POLICIES.get(form, "signed")


def sides(size: int) -> torch.Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_solutions_are_those_of_the_matrix(pair) -> None:
    curvature, dense, policy = pair
    lowest = float(dense.eigenvalues()[0])
    v = sides(dense.size)
    dampings = [3.0 * abs(lowest) + 0.05 * scale for scale in (1.0, 20.0)]
    found = curvature.solutions(v, dampings)
    assert not found.failures
    assert float(found.error.max()) < 1e-8
    for damping, x in zip(dampings, found.x, strict=True):
        expected = dense.solve(v, damping, policy)
        for got in (x, curvature.solve(v, damping)):
            assert float((got - expected).norm() / expected.norm()) < 1e-6


def test_eigenvalues_are_those_of_the_matrix_or_not_known(pair) -> None:
    curvature, dense, _ = pair
    if curvature.matrix_free:
        with pytest.raises(NotAvailableError):
            curvature.eigenvalues()
        return
    atol = 1e-10 * float(dense.eigenvalues().abs().max())
    torch.testing.assert_close(curvature.eigenvalues(), dense.eigenvalues(), rtol=1e-8, atol=atol)


def test_trace_and_norm_are_those_of_the_matrix_within_their_errors(pair) -> None:
    curvature, dense, _ = pair
    for found, exact in (
        (curvature.trace(12, 0), dense.trace()),
        (curvature.frobenius_norm(12, 0), dense.frobenius_norm()),
    ):
        assert found.exact or curvature.matrix_free
        assert abs(found - exact) <= 3.0 * found.error + 1e-9 * dense.frobenius_norm()


def test_an_eigenbasis_is_one_of_the_matrix(pair) -> None:
    curvature, dense, _ = pair
    basis = curvature.eigenbasis
    if basis is None:
        return
    v = sides(dense.size)
    torch.testing.assert_close(basis.from_basis(basis.to_basis(v)), v, rtol=0, atol=1e-9)
    image = basis.from_basis(basis.basis_values()[:, None] * basis.to_basis(v))
    atol = 1e-9 * dense.frobenius_norm()
    torch.testing.assert_close(image, dense.matvec(v), rtol=1e-9, atol=atol)


def test_blocks_are_those_of_the_matrix(pair) -> None:
    curvature, dense, _ = pair
    start = 0
    for block in curvature.diagonal_blocks().values():
        part = slice(start, start := start + block.size)
        image = block.matvec(torch.eye(block.size, dtype=torch.float64))
        torch.testing.assert_close(image, dense.matrix[part, part], rtol=1e-9, atol=1e-12)
