"""Operators, the dual Gram matrix and quadrature against the dense path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from decomposition.chain import build_lattice
from decomposition.curvature import EigenpairCurvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.spectrum.density import density
from decomposition.spectrum.dual import dual_eigenvalues, dual_gram
from decomposition.spectrum.gather import estimated_measures, measures_of
from decomposition.spectrum.large import Estimation, ends, estimated_measure
from decomposition.spectrum.measure import exact_measure, union
from decomposition.spectrum.operators import ggn_operator, hessian_operator
from decomposition.spectrum.summary import effective_dimensions, summary
from tests.cases import classification


def planted(size: int = 160, seed: int = 0) -> EigenpairCurvature:
    """Three outliers of either sign above a bulk of both signs."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([[9.0, 7.0, 5.0, -6.0, -4.0], rng.normal(0.0, 0.3, size - 5)])
    vectors, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return EigenpairCurvature(torch.from_numpy(values), torch.from_numpy(vectors))


def wide() -> Problem:
    """P = 67 parameters, N·C = 15."""
    return classification(mlp((4, 8, 3), nn.GELU, 0), n=5)


PLAN = Estimation(ends=6, probes=12, steps=40)


@pytest.mark.parametrize(("name", "make"), [("hessian", hessian_operator), ("ggn", ggn_operator)])
def test_products_are_those_of_the_matrix(problem: Problem, name: str, make) -> None:
    matrix = build_lattice(problem)[name].dense()
    v = torch.randn(problem.num_parameters, 3, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(make(problem).matvec(v), matrix @ v, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "make"), [("hessian", hessian_operator), ("ggn", ggn_operator)])
def test_products_of_a_block_are_those_of_its_part(problem: Problem, name: str, make) -> None:
    matrix = build_lattice(problem)[name].dense()
    for block in problem.blocks:
        v = torch.eye(block.size, dtype=torch.float64)
        part = matrix[block.slice, block.slice]
        found = make(problem, block.name).matvec(v)
        torch.testing.assert_close(found, part, rtol=1e-9, atol=1e-10)


def test_an_unknown_block_is_named() -> None:
    with pytest.raises(DecompositionError, match=r"no block '9': the blocks are 0, 2"):
        ggn_operator(wide(), "9")


def test_the_dual_has_the_spectrum_of_g() -> None:
    problem = wide()
    expected = build_lattice(problem)["ggn"].eigenvalues()
    torch.testing.assert_close(dual_eigenvalues(problem), expected, rtol=1e-8, atol=1e-12)


def test_the_dual_of_a_block_has_the_spectrum_of_that_block() -> None:
    problem = wide()
    block = build_lattice(problem)["block_ggn"].diagonal_blocks()["0"]
    found = dual_eigenvalues(problem, ["0"])
    torch.testing.assert_close(found, block.eigenvalues(), rtol=1e-8, atol=1e-12)


def test_the_dual_has_the_trace_and_frobenius_norm_of_g(problem: Problem) -> None:
    gram, ggn = dual_gram(problem), build_lattice(problem)["ggn"]
    assert float(gram.trace()) == pytest.approx(ggn.trace(), rel=1e-10)
    assert float(torch.linalg.norm(gram)) == pytest.approx(ggn.frobenius_norm(), rel=1e-10)


def test_the_dual_refuses_where_it_is_the_larger_side() -> None:
    problem = classification(mlp((4, 3), nn.Identity, 0))
    with pytest.raises(DecompositionError, match=r"N·C = 72, more than P = 15"):
        dual_eigenvalues(problem)


def test_lanczos_finds_the_planted_ends() -> None:
    found = ends(planted(), PLAN).values
    for outlier in (9.0, 7.0, 5.0, -6.0, -4.0):
        assert np.abs(found - outlier).min() < 1e-8


def test_an_estimate_weighs_p_eigenvalues_and_repeats_itself() -> None:
    first, again = estimated_measure(planted(), PLAN), estimated_measure(planted(), PLAN)
    np.testing.assert_allclose(first.weights.sum(1), 160.0)
    np.testing.assert_array_equal(first.nodes, again.nodes)


def test_quadrature_density_lies_within_its_error_bars_of_the_dense_one() -> None:
    curvature = planted()
    both = [
        {"whole": {"mine": exact_measure(curvature.eigenvalues())}},
        {"whole": {"mine": estimated_measure(curvature, PLAN)}},
    ]
    exact, found = (density(m, threshold=0.1).squeeze() for m in both)
    error = np.hypot(found["standard_error"], 0.01 * exact["density"].max())
    deviation = np.abs(found["density"].values - exact["density"].values) / error
    assert float((deviation < 3.0).mean()) > 0.95
    assert float(deviation.max()) < 6.0


@pytest.mark.parametrize("quantity", ["trace", "frobenius", "nuclear", "stable_rank"])
def test_estimated_summaries_lie_within_three_standard_errors(quantity: str) -> None:
    curvature = planted()
    exact, found = (
        summary({"whole": {"mine": m}}).sel(quantity=quantity).squeeze()
        for m in (exact_measure(curvature.eigenvalues()), estimated_measure(curvature, PLAN))
    )
    gap = abs(float(found["value"]) - float(exact["value"]))
    assert gap < 3.0 * float(found["standard_error"]) + 1e-9


def test_estimated_counts_at_zero_are_not_claimed() -> None:
    data = summary({"whole": {"mine": estimated_measure(planted(), PLAN)}})["value"]
    assert np.isnan(data.sel(quantity=["numerical_rank", "negative_count"])).all()


def test_the_density_integrates_to_the_number_of_eigenvalues() -> None:
    data = density({"whole": {"mine": exact_measure(planted().eigenvalues())}}, points=2000)
    total = np.trapezoid(data["density"].squeeze(), data["position"])
    assert total == pytest.approx(160.0, rel=1e-3)


def test_the_large_path_agrees_with_the_dense_one_on_a_problem() -> None:
    problem = wide()
    dense = measures_of(build_lattice(problem))
    large = estimated_measures(problem, plan=Estimation(ends=3, probes=16, steps=30))
    assert {scope: list(row) for scope, row in large.items()} == {
        scope: list(row) for scope, row in dense.items()
    }
    grid = [1e-3, 1e-2, 1e-1]
    exact, found = (effective_dimensions(m, grid) for m in (dense, large))
    gap = np.abs(found["dimension"] - exact["dimension"])
    assert bool((gap <= 4.0 * found["standard_error"] + 1e-6 * exact["dimension"] + 1e-3).all())


def test_structured_rungs_and_the_dual_are_exact_on_the_large_path() -> None:
    problem = wide()
    dense, large = measures_of(build_lattice(problem)), estimated_measures(problem)
    for rung in ("ggn", "ekfac", "kfac"):
        np.testing.assert_allclose(
            large["whole"][rung].eigenvalues(), dense["whole"][rung].eigenvalues(), atol=1e-12
        )


def test_a_union_has_the_eigenvalues_of_its_parts() -> None:
    parts = [exact_measure(np.array([1.0, 3.0])), exact_measure(np.array([2.0]))]
    np.testing.assert_array_equal(union(parts).eigenvalues(), [1.0, 2.0, 3.0])
