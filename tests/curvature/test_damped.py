"""Factored damping: the inverse of (A + π√λ I) ⊗ (S + (√λ/π) I), by hand and everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import KFAC, build_chain
from decomposition.chain.paper_protocol import ladder_rungs
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import BlockDiagonal, DenseCurvature, Diagonalised, EigenpairCurvature
from decomposition.curvature.damped import DampedSpectrum, factor_ratio
from decomposition.curvature.factors import kronecker_factors
from decomposition.curvature.kronecker import FactorBasis, KroneckerBasis
from decomposition.damping import damping_for_effective_dimension, effective_dimension
from decomposition.layers import LinearBlock
from decomposition.problem import Problem
from decomposition.scores.gradients import influence_scores, loss_gradients
from decomposition.scores.scorers import scorers_of
from decomposition.spectrum.inverse_errors import compare_inverses
from tests import cases

DAMPINGS = (1e-4, 0.03, 2.0)


def _damped_factors(a: np.ndarray, s: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """A + π√λ I and S + (√λ/π) I."""
    pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(s) / len(s)))
    root = np.sqrt(damping)
    return a + pi * root * np.eye(len(a)), s + root / pi * np.eye(len(s))


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("separate", [False, True])
def test_solve_inverts_the_damped_factors(problem: Problem, damping: float, separate: bool) -> None:
    """S⁻¹ [W | b] A⁻¹ with both damped; a bias of its own has the weight's damped S alone."""
    curvature = KFAC(separate_bias=separate, factored_damping=True)(problem)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, generator=generator, dtype=torch.float64)
    solved = curvature.solve(v, damping)
    factors = kronecker_factors(problem)
    for block in problem.blocks:
        a, s = (factor.numpy() for factor in factors[block.name])
        m, found = (
            block.to_matrix(part[block.slice, None])[:, :, 0].numpy() for part in (v, solved)
        )
        d = block.d_in if separate else block.width
        damped_a, damped_s = _damped_factors(a[:d, :d], s, damping)
        weight = np.linalg.solve(damped_a, np.linalg.solve(damped_s, m[:, :d]).T).T
        np.testing.assert_allclose(found[:, :d], weight, rtol=1e-8)
        np.testing.assert_allclose(found[:, d:], np.linalg.solve(damped_s, m[:, d:]), rtol=1e-8)


def test_the_matrix_itself_is_that_of_kfac(problem: Problem) -> None:
    factored, plain = KFAC(factored_damping=True)(problem), KFAC()(problem)
    torch.testing.assert_close(factored.dense(), plain.dense(), rtol=0, atol=0)
    torch.testing.assert_close(factored.eigenvalues(), plain.eigenvalues(), rtol=0, atol=0)
    assert any("factored damping" in note for note in factored.notes)


def test_a_vanishing_factor_is_left_to_exact_damping() -> None:
    one, none = torch.ones(3).double(), torch.zeros(2).double()
    assert factor_ratio(one, none) is None
    assert factor_ratio(none, one) is None
    block = LinearBlock("dead", 0, 3, 2, bias=False)
    inputs, outputs = FactorBasis(one, torch.eye(3), ()), FactorBasis(none, torch.eye(2), ())
    basis = KroneckerBasis(block, inputs, outputs)
    assert not basis.factored_damping().at(0.1).any()


def test_balanced_factors_are_damped_alike() -> None:
    """π = 1 where the mean eigenvalues are equal, and π² is their ratio."""
    assert factor_ratio(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])) == 1.0
    assert factor_ratio(torch.tensor([8.0]), torch.tensor([2.0])) == 2.0


@pytest.mark.parametrize("rung", ladder_rungs())
def test_scorers_use_the_damped_inverse_of_the_rung(rung: str) -> None:
    """τ of the scorer, of influence_scores and of a plain solve."""
    problem = cases.tanh()
    curvature = build_chain(problem, ladder_rungs())[rung]
    gradients = loss_gradients(problem)
    scorer = scorers_of({rung: curvature}, gradients)[rung]
    for damping in DAMPINGS:
        expected = curvature.solve(gradients.query, damping).T @ gradients.train
        expected /= problem.num_examples
        scale = float(expected.abs().max())
        tau = influence_scores(problem, curvature, damping)
        torch.testing.assert_close(tau, expected, rtol=1e-9, atol=1e-12 * scale)
        found = torch.from_numpy(scorer.scores(damping)).double()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("rung", ["kfac_split_mc1_pi", "hessian_truncated"])
def test_damped_inverse_error_of_the_rung(rung: str) -> None:
    """‖C_λ⁻¹ − R_λ⁻¹‖² / ‖R_λ⁻¹‖² from the dense inverses."""
    problem = cases.tanh()
    chain = build_chain(problem, ladder_rungs())
    curvature, reference = chain[rung], chain["ggn"]
    assert isinstance(curvature, Diagonalised)
    assert isinstance(reference, Diagonalised)
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    (both,) = compare_inverses([curvature], reference, [DAMPINGS], DAMPINGS, 3)
    found = both.forward
    for i, damping in enumerate(DAMPINGS):
        c, r = curvature.solve(eye, damping), reference.solve(eye, damping)
        expected = float((c - r).square().sum() / r.square().sum())
        assert found.squared[i] == pytest.approx(expected, rel=1e-6)
        if float(torch.linalg.eigvalsh(c)[0]) > 1e-9:
            stein = torch.trace(torch.linalg.solve(c, r)) + torch.logdet(c) - torch.logdet(r)
            assert found.stein[i] == pytest.approx(float(stein) - len(eye), rel=1e-6)
        else:  # a direction left out has no finite damped eigenvalue
            assert np.isnan(found.stein[i])


def test_blocks_with_and_without_factored_damping_stand_side_by_side() -> None:
    problem = cases.tanh()
    parts = Parts(problem)
    factored = KFAC(factored_damping=True).build(parts).diagonal_blocks()
    plain = KFAC().build(parts).diagonal_blocks()
    names = list(plain)
    mixed = BlockDiagonal({names[0]: factored[names[0]], names[1]: plain[names[1]]})
    v = torch.ones(mixed.size, dtype=torch.float64)
    start = factored[names[0]].size
    expected = [factored[names[0]].solve(v[:start], 0.1), plain[names[1]].solve(v[start:], 0.1)]
    torch.testing.assert_close(mixed.solve(v, 0.1), torch.cat(expected))


def test_effective_dimension_counts_with_the_denominators_of_the_rung() -> None:
    spectrum = _spectrum()
    for damping in DAMPINGS:
        expected = float((spectrum.values / spectrum.denominators(damping)).sum())
        found = effective_dimension(spectrum.values, damping, spectrum.added)
        assert found == pytest.approx(expected, rel=1e-12)


def test_damping_at_an_effective_dimension_with_factored_damping() -> None:
    spectrum = _spectrum()
    damping = damping_for_effective_dimension(spectrum.values, 5.0, spectrum.added)
    assert effective_dimension(spectrum.values, damping, spectrum.added) == pytest.approx(5.0)
    assert damping < damping_for_effective_dimension(spectrum.values, 5.0)


def test_exact_damping_adds_lambda() -> None:
    mu = torch.arange(1.0, 5.0).double()
    exact = DampedSpectrum(mu)
    assert effective_dimension(mu, 0.3, exact.added) == effective_dimension(mu, 0.3)


def _spectrum() -> DampedSpectrum:
    return KFAC(factored_damping=True).build(Parts(cases.tanh())).spectrum()


def test_a_scaled_identity_is_blind_to_damping_and_kfac_is_not() -> None:
    assert DampedSpectrum(torch.full((3,), 2.0)).blind_to_damping()
    assert not _spectrum().blind_to_damping()
    assert not DampedSpectrum(torch.arange(3.0)).blind_to_damping()


def test_curvatures_of_ones_own_have_exact_damping() -> None:
    """Nothing changes for those who know of no cross damping."""
    values, vectors = torch.arange(1.0, 4.0).double(), torch.eye(3).double()
    for curvature in (EigenpairCurvature(values, vectors), DenseCurvature(torch.diag(values))):
        assert curvature.spectrum().factored is None
        torch.testing.assert_close(curvature.spectrum().denominators(0.5), values + 0.5)
