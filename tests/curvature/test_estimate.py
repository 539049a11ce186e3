"""Traces, norms and inner products estimated from products, against the dense ones."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature import Curvature, EigenpairCurvature
from decomposition.curvature.estimate import (
    Estimate,
    inner_product,
    probes,
    relative_error,
    squared_distance,
    squared_norm,
    xtrace,
)
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import ggn_product, hessian_product
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.spectrum.measure import exact_measure
from decomposition.spectrum.quadrature import Estimation, estimated_spectrum
from tests import cases, general

PROBLEMS: dict[str, Callable[[], Problem]] = {
    case.__name__: case for case in (cases.tanh, cases.residual, general.cnn)
}
COUNT = 12


@pytest.fixture(scope="module", params=list(PROBLEMS))
def pair(request: pytest.FixtureRequest) -> tuple[dict[str, Curvature], dict[str, Curvature]]:
    """H and G by their products, and dense with the structured rungs."""
    problem = PROBLEMS[request.param]()
    products = {"hessian": hessian_product(problem), "ggn": ggn_product(problem)}
    free: dict[str, Curvature] = {n: MatrixFreeCurvature(p) for n, p in products.items()}
    chain = build_chain(problem)
    return {**chain, **free}, chain


def within(found: Estimate, exact: float, scale: float) -> bool:
    return abs(found - exact) <= 3.0 * found.error + 1e-8 * scale


@pytest.mark.parametrize("name", ["hessian", "ggn"])
def test_traces_and_norms_lie_within_three_standard_errors(pair, name: str) -> None:
    free, chain = pair
    norm = chain[name].frobenius_norm()
    assert within(xtrace(free[name], COUNT), chain[name].trace(), norm)
    assert within(squared_norm(free[name], COUNT), norm**2, norm**2)


@pytest.mark.parametrize(("first", "second"), [("hessian", "ggn"), ("ggn", "ekfac")])
def test_distances_and_inner_products_lie_within_three_standard_errors(
    pair, first: str, second: str
) -> None:
    free, chain = pair
    c, d = chain[first].dense(), chain[second].dense()
    scale = float(torch.linalg.norm(c) * torch.linalg.norm(d))
    distance = squared_distance(free[first], free[second], COUNT)
    assert within(distance, float(torch.linalg.norm(c - d)) ** 2, scale)
    assert within(inner_product(free[first], free[second], COUNT), float((c * d).sum()), scale)


def test_the_density_of_products_is_that_of_the_matrix_within_its_error(pair) -> None:
    free, chain = pair
    plan = Estimation(ends=3, probes=16, steps=30)
    found = estimated_spectrum(free["hessian"], plan)
    exact = exact_measure(chain["hessian"].eigenvalues())
    width = 0.2 * float(np.abs(exact.nodes).max())

    def smooth(mu: np.ndarray) -> np.ndarray:
        centres = np.linspace(exact.nodes.min(), exact.nodes.max(), 7)
        return np.exp(-0.5 * ((mu - centres[:, None]) / width) ** 2)

    (value, error), (truth, _) = found.integrate(smooth), exact.integrate(smooth)
    assert (np.abs(value - truth) <= 4.0 * error + 1e-6 * truth).all()


def spectrum(values: np.ndarray, seed: int) -> EigenpairCurvature:
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return EigenpairCurvature(torch.from_numpy(values), torch.from_numpy(vectors))


def test_the_standard_error_is_that_of_repetitions() -> None:
    curvature = spectrum(np.geomspace(1.0, 1e-3, 80), 0)
    truth = curvature.trace()
    found = [xtrace(curvature, 10, seed) for seed in range(200)]
    values = np.array(found)
    assert abs(values.mean() - truth) < 3.0 * values.std() / np.sqrt(len(values))
    claimed = np.sqrt(np.mean([one.error**2 for one in found]))
    assert 0.5 < claimed / values.std() < 2.0


def test_a_decaying_spectrum_takes_fewer_products_than_independent_probes() -> None:
    curvature = spectrum(np.geomspace(1.0, 1e-6, 80), 1)
    truth = curvature.frobenius_norm() ** 2

    def independent(seed: int) -> float:
        return float(curvature.matvec(probes(80, 40, seed)).square().sum(0).mean())

    errors = [
        np.sqrt(np.mean([(f(seed) - truth) ** 2 for seed in range(30)]))
        for f in (lambda s: squared_norm(curvature, 20, s), independent)
    ]
    assert errors[0] < 0.2 * errors[1]


def test_a_low_rank_matrix_is_exact() -> None:
    values = np.r_[np.zeros(40), 1.0, 2.0, 3.0]
    found = squared_norm(spectrum(values, 2), 8)
    assert found == pytest.approx(14.0, rel=1e-8)
    assert found.error == 0.0


@pytest.mark.parametrize("ask", [xtrace, squared_norm])
def test_one_probe_has_no_spread(ask) -> None:
    with pytest.raises(DecompositionError, match=r"at least 2 probes, got 1"):
        ask(spectrum(np.ones(5), 3), 1)


def test_a_relative_error_is_exact_where_its_parts_are() -> None:
    found = relative_error(np.full(4, 2.0), np.full(4, 8.0))
    assert found == 0.5
    assert found.exact
    assert np.isnan(relative_error(np.full(4, 2.0), np.zeros(4)))


def test_what_probes_do_to_distance_and_norm_alike_cancels() -> None:
    norms = np.random.default_rng(0).uniform(1.0, 3.0, 16)
    assert relative_error(0.25 * norms, norms) == pytest.approx(0.5)
    assert relative_error(0.25 * norms, norms).error < 1e-12
    assert relative_error(0.25 * norms[::-1], norms).error > 1e-2


def test_an_estimate_is_a_number_that_keeps_its_error_when_it_is_copied() -> None:
    found = Estimate(3.0, 0.5)
    assert found + 1.0 == 4.0
    assert not found.exact
    assert Estimate(3.0).exact
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (float(again), again.error) == (3.0, 0.5)
