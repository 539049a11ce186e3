"""The table of spectral errors against its definitions, and what it does when it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from decomposition import DecompositionError, Problem, build_chain, build_lattice
from decomposition.curvature import ScaledIdentity, SolveCurvature
from decomposition.scores.gradients import loss_gradients
from decomposition.spectrum.errors import DAMPED, METRICS, ErrorPlan, spectral_errors
from tests import cases

PLAN = ErrorPlan(dampings=[0.01, 0.3], headline=1, leading=3)


def absolute_inverse(matrix: np.ndarray, damping: float) -> np.ndarray:
    mu, v = np.linalg.eigh(matrix)
    return (v / (np.abs(mu) + damping)) @ v.T


@pytest.mark.parametrize("reference", ["hessian", "ggn"])
@pytest.mark.parametrize("case", ["gelu", "tanh_regression", "residual"])
def test_every_metric_by_numpy(case: str, reference: str) -> None:
    problem = cases.CASES[case]()
    lattice, queries = build_lattice(problem), loss_gradients(problem).query
    table = spectral_errors(lattice, reference, PLAN, queries)
    r, g = lattice[reference].dense().numpy(), queries.numpy()
    for name, rung in lattice.items():
        c = rung.dense().numpy()
        value = table["value"].sel(rung=name)
        for metric, order in (("frobenius", "fro"), ("spectral", 2), ("nuclear", "nuc")):
            expected = np.linalg.norm(c - r, order) / np.linalg.norm(r, order)
            found = float(value.sel(metric=f"relative_{metric}"))
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), (name, metric)
        for i, damping in enumerate(PLAN.dampings):
            mine, theirs = absolute_inverse(c, damping), absolute_inverse(r, damping)
            damped = table["damped_value"].sel(rung=name).isel(damping=i)
            for metric, x, y in (
                ("damped_inverse", mine, theirs),
                ("damped_inverse_queries", mine @ g, theirs @ g),
            ):
                expected = np.linalg.norm(x - y) / np.linalg.norm(y)
                found = float(damped.sel(metric=metric))
                # The square root of a difference of sums: half the digits near zero.
                assert found == pytest.approx(expected, rel=1e-8, abs=1e-7), (name, metric)
        headline = table["damped_value"].sel(rung=name).isel(damping=PLAN.headline)
        for metric in DAMPED:
            assert float(value.sel(metric=metric)) == float(headline.sel(metric=metric))
    assert bool((table["standard_error"] == 0).all())


@pytest.mark.parametrize("reference", ["hessian", "ggn"])
def test_the_reference_is_perfect(reference: str) -> None:
    problem = cases.gelu()
    queries = loss_gradients(problem).query
    table = spectral_errors(build_chain(problem), reference, PLAN, queries)
    value = table["value"].sel(rung=reference)
    for metric in METRICS:
        expected = 1.0 if metric.endswith("overlap") else 0.0
        assert float(value.sel(metric=metric)) == expected


def test_each_protocol_compares_each_rung_at_its_own_damping() -> None:
    problem = cases.gelu()
    chain = build_chain(problem)
    own = {name: 0.1 * (i + 1) for i, name in enumerate(chain)}
    plan = ErrorPlan([0.1], 0, 3, protocols={"tuned": own, "equal": dict.fromkeys(chain, 0.2)})
    table = spectral_errors(chain, "hessian", plan)
    for protocol, dampings in plan.protocols.items():
        theirs = absolute_inverse(chain["hessian"].dense().numpy(), dampings["hessian"])
        for name, rung in chain.items():
            mine = absolute_inverse(rung.dense().numpy(), dampings[name])
            scale = (mine * theirs).sum() / (mine * mine).sum()
            expected = (np.linalg.norm(scale * mine - theirs) / np.linalg.norm(theirs)) ** 2
            found = float(table["misaligned"].sel(protocol=protocol, rung=name))
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_rung_known_by_its_solver_alone_is_undefined() -> None:
    problem = cases.gelu()
    chain = build_chain(
        problem, {"mine": lambda p: SolveCurvature(p.num_parameters, lambda v, d: v)}
    )
    table = spectral_errors(chain, "hessian", PLAN, loss_gradients(problem).query)
    assert bool(table["value"].sel(rung="mine").isnull().all())
    assert bool(table["damped_value"].sel(rung="mine").isnull().all())
    assert not bool(table["value"].sel(rung="kfac").isnull().any())


def test_a_rung_known_by_its_products_is_the_matrix_it_is() -> None:
    problem = cases.gelu()
    chain = build_chain(problem)
    kfac = chain["kfac"]
    chain["mine"] = SolveCurvature(kfac.size, kfac.solve, kfac.matvec)
    table = spectral_errors(chain, "ggn", PLAN, loss_gradients(problem).query)
    mine, theirs = (table["value"].sel(rung=name).values for name in ("mine", "kfac"))
    np.testing.assert_allclose(mine, theirs, rtol=1e-8)


def test_wrong_products_are_not_passed_over_in_silence() -> None:
    problem = cases.gelu()
    chain = build_chain(problem)
    shear = torch.ones(problem.num_parameters, problem.num_parameters).double().triu()
    chain["mine"] = SolveCurvature(problem.num_parameters, lambda v, d: v, lambda v: shear @ v)
    with pytest.raises(DecompositionError, match="not symmetric"):
        spectral_errors(chain, "hessian", PLAN)


def test_without_queries_or_matrix_norms_those_metrics_are_undefined() -> None:
    plan = ErrorPlan([0.1], 0, 3, matrix_norms=False)
    table = spectral_errors(build_chain(cases.gelu()), "hessian", plan)
    kfac = table["value"].sel(rung="kfac")
    missing = set(kfac["metric"].values[np.isnan(kfac.values)])
    assert missing == {"relative_spectral", "relative_nuclear", "damped_inverse_queries"}


def test_one_matrix_under_two_names_is_computed_once_and_shown_twice() -> None:
    chain = build_chain(cases.gelu())
    chain["twin"], chain["exact"] = chain["kfac"], chain["hessian"]
    table = spectral_errors(chain, "hessian", PLAN)
    for one, other in (("twin", "kfac"), ("exact", "hessian")):
        np.testing.assert_array_equal(table["value"].sel(rung=one), table["value"].sel(rung=other))


def test_a_reference_without_a_matrix_is_refused() -> None:
    rungs = {"mine": SolveCurvature(3, lambda v, d: v), "identity": ScaledIdentity(3, 1.0)}
    with pytest.raises(DecompositionError, match="reference rung 'mine' has no dense form"):
        spectral_errors(rungs, "mine", PLAN)


def test_a_layer_that_is_dead_has_no_relative_error() -> None:
    """Its block of the Hessian is zero: undefined, not a crash, and the rest stays defined."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
    y = torch.arange(9) % 2
    problem = Problem(model, nn.CrossEntropyLoss(), (x[:6], y[:6]), (x[6:], y[6:]))
    chain = build_chain(problem)
    blocks = {name: rung.diagonal_blocks()["0"] for name, rung in chain.items()}
    assert not blocks["hessian"].dense().any()
    value = spectral_errors(blocks, "hessian", PLAN)["value"].sel(rung="kfac")
    assert np.isnan(value.sel(metric="relative_frobenius"))
    assert float(value.sel(metric="damped_inverse")) == 0.0
    assert float(value.sel(metric="eigenvalue_overlap")) == 1.0
