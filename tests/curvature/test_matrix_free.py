"""Rungs known by their products against the dense chain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature import Curvature, NotAvailableError
from decomposition.curvature.block_products import block_ggn_product
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import ggn_product, hessian_product
from decomposition.curvature.solution import SolverError
from decomposition.damping import PseudoInverse
from decomposition.problem import Problem
from decomposition.spectrum.quadrature import Estimation, estimated_spectrum
from tests import cases, general

PROBLEMS: dict[str, Callable[[], Problem]] = {
    case.__name__: case for case in (cases.tanh, cases.residual, general.cnn, general.layer_norm)
}


@pytest.fixture(scope="module", params=list(PROBLEMS))
def chain(request: pytest.FixtureRequest) -> tuple[Problem, dict[str, Curvature]]:
    problem = PROBLEMS[request.param]()
    return problem, build_chain(problem)


def sides(size: int) -> torch.Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


@pytest.mark.parametrize("damping", [1.0, 1e-2])
def test_h_is_solved_as_it_is(chain: tuple[Problem, dict[str, Curvature]], damping: float) -> None:
    problem, rungs = chain
    v = sides(problem.num_parameters)
    found = MatrixFreeCurvature(hessian_product(problem), rungs["ekfac"], tolerance=1e-12)
    expected = rungs["hessian"].solve(v, damping, "signed")
    assert error(found.solve(v, damping, "signed"), expected) < 1e-8


@pytest.mark.parametrize("policy", ["absolute", "clip"])
def test_h_is_solved_by_policy(chain: tuple[Problem, dict[str, Curvature]], policy: str) -> None:
    problem, rungs = chain
    v, damping = sides(problem.num_parameters), 0.3 * rungs["hessian"].frobenius_norm()
    found = MatrixFreeCurvature(hessian_product(problem), krylov_steps=60)
    assert error(found.solve(v, damping, policy), rungs["hessian"].solve(v, damping, policy)) < 0.02


@pytest.mark.parametrize("name", ["ggn", "block_ggn"])
def test_definite_rungs_are_solved(chain: tuple[Problem, dict[str, Curvature]], name: str) -> None:
    problem, rungs = chain
    product = (ggn_product if name == "ggn" else block_ggn_product)(problem)
    found = MatrixFreeCurvature(product, rungs["ekfac"], definite=True, tolerance=1e-12)
    v = sides(problem.num_parameters)
    assert error(found.solve(v, 1e-2), rungs[name].solve(v, 1e-2)) < 1e-8


def test_a_preconditioner_changes_the_work_not_the_answer() -> None:
    problem = cases.tanh()
    rungs, v = build_chain(problem), sides(problem.num_parameters)
    with_it, without = (
        MatrixFreeCurvature(hessian_product(problem), m, tolerance=1e-11)
        for m in (rungs["ekfac"], None)
    )
    assert error(with_it.solve(v, 1e-2, "signed"), without.solve(v, 1e-2, "signed")) < 1e-8
    assert with_it.record[0].products < without.record[0].products


def test_every_solve_is_recorded() -> None:
    problem = cases.tanh()
    product = ggn_product(problem)
    found = MatrixFreeCurvature(product, definite=True, tolerance=1e-7)
    found.solve(sides(problem.num_parameters), 0.1)
    found.solve(sides(problem.num_parameters)[:, 0], 1.0)
    assert [(one.damping, one.columns) for one in found.record] == [(0.1, 3), (1.0, 1)]
    assert sum(one.products for one in found.record) == product.count
    assert all(0 < one.residual <= 1e-7 for one in found.record)


def test_its_solvers_are_in_the_notes() -> None:
    problem = cases.tanh()
    assert any("Krylov" in note for note in MatrixFreeCurvature(hessian_product(problem)).notes)


def test_what_is_not_known_is_refused() -> None:
    found = MatrixFreeCurvature(hessian_product(cases.tanh()))
    for ask in (found.eigenvalues, found.dense):
        with pytest.raises(NotAvailableError, match=r"estimate"):
            ask()


def test_a_trace_that_is_known_is_exact() -> None:
    """tr G = tr E, which the factors tell: nothing is sampled."""
    problem = cases.tanh()
    known = build_chain(problem)["ekfac"].trace()
    found = MatrixFreeCurvature(ggn_product(problem), definite=True, trace=known).trace()
    assert found == known
    assert found.exact


def test_too_few_steps_name_the_residual_and_the_way_out() -> None:
    problem = cases.tanh()
    found = MatrixFreeCurvature(hessian_product(problem), most=2)
    with pytest.raises(SolverError, match=r"use a larger damping"):
        found.solve(sides(problem.num_parameters), 1e-6, "signed")


def test_its_density_is_estimated_from_its_products() -> None:
    problem = cases.tanh()
    found = estimated_spectrum(
        MatrixFreeCurvature(hessian_product(problem)), Estimation(ends=4, probes=12, steps=30)
    )
    hessian = build_chain(problem)["hessian"]
    for function, exact in (
        (lambda mu, w: float(w @ mu), hessian.trace()),
        (lambda mu, w: float(w @ mu**2), hessian.frobenius_norm() ** 2),
    ):
        value = found.statistic(function)
        assert abs(value - exact) < 3.0 * value.error + 1e-9


def test_what_is_left_out_is_left_out_of_definite_rungs_too(
    chain: tuple[Problem, dict[str, Curvature]],
) -> None:
    problem, rungs = chain
    v = sides(problem.num_parameters)
    found = MatrixFreeCurvature(ggn_product(problem), definite=True, krylov_steps=len(v))
    threshold = 0.3 * float(rungs["ggn"].eigenvalues()[-1])
    expected = rungs["ggn"].solve(v, threshold, PseudoInverse())
    assert error(found.solve(v, threshold, PseudoInverse()), expected) < 1e-6
