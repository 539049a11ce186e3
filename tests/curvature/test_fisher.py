"""Exact, sampled and empirical Fishers: closed forms, unbiasedness, and their Kronecker forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from decomposition.curvature import EXACT, Empirical, Fisher, Sampled, terms
from decomposition.curvature.assembly import assemble_ggn
from decomposition.curvature.factors import (
    ggn_diagonals,
    kronecker_bases,
    kronecker_factors,
)
from decomposition.curvature.fisher import sampled_gradient
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.errors import DecompositionError
from decomposition.losses import CrossEntropy, Loss, MeanSquaredError
from decomposition.problem import Problem
from tests import cases

FISHERS: dict[str, Fisher] = {
    "exact": EXACT,
    "sampled": Sampled(1, seed=3),
    "sampled twice": Sampled(2, seed=3),
    "empirical": Empirical(),
}


def _linear_gradients(problem: Problem, delta: np.ndarray) -> np.ndarray:
    """(N, P) gradients of a linear model from those at its outputs: δ ⊗ x, then δ."""
    x = problem.train[0].double().numpy()
    return np.hstack([(delta[:, :, None] * x[:, None, :]).reshape(len(x), -1), delta])


def test_empirical_fisher_of_a_linear_softmax_model_by_hand() -> None:
    problem = cases.linear_softmax()
    x, y = (part.numpy() for part in problem.train)
    w, b = (p.detach().double().numpy() for p in problem.model.parameters())
    logits = x @ w.T + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    g = _linear_gradients(problem, p - np.eye(3)[y])
    np.testing.assert_allclose(assemble_ggn(problem, Empirical()), g.T @ g / len(x), atol=1e-12)


def test_empirical_fisher_of_a_linear_regression_by_hand() -> None:
    problem = cases.linear_regression()
    x, y = (part.numpy() for part in problem.train)
    w, b = (p.detach().double().numpy() for p in problem.model.parameters())
    g = _linear_gradients(problem, x @ w.T + b - y)  # 2 / C = 1
    np.testing.assert_allclose(assemble_ggn(problem, Empirical()), g.T @ g / len(x), atol=1e-12)


def test_empirical_fisher_is_the_second_moment_of_the_loss_gradients(problem: Problem) -> None:
    g = per_example_gradients(problem, *problem.train)
    expected = g.T @ g / problem.num_examples
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        assemble_ggn(problem, Empirical()), expected, rtol=0, atol=1e-12 * scale
    )


def test_sampled_labels_have_the_predicted_frequencies() -> None:
    """Over a fine grid of u the mean of g gᵀ is Λ = diag(p) − p pᵀ up to the grid's step."""
    loss, count = CrossEntropy(), 20_000
    f = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64).expand(count, 3)
    u = ((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None].expand(count, 3)
    g = sampled_gradient(loss, f, torch.zeros(count, dtype=torch.long), u)
    expected = loss.hessian(f[:1], torch.zeros(1, dtype=torch.long))[0]
    torch.testing.assert_close(g.T @ g / count, expected, rtol=0, atol=3 / count)


def test_gaussian_labels_have_the_variance_that_the_loss_implies() -> None:
    """ℓ = ‖f − y‖²/C is −log N(f, (C/2) I): the gradient's second moment is Λ = (2/C) I."""
    loss, count, outputs = MeanSquaredError(), 100_000, 3
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    f = torch.zeros(count, outputs, dtype=torch.float64)
    g = sampled_gradient(loss, f, f, u[:, None].expand(count, outputs))
    expected = loss.hessian(f[:1], f)[0, 0, 0]
    torch.testing.assert_close(g[:, 0].square().mean(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("case", [cases.tanh, cases.tanh_regression])
def test_sampled_factors_are_unbiased(case: Callable[[], Problem]) -> None:
    """tr S and a quadratic form of S: the mean over 200 draws within 3 standard errors."""
    problem = case()
    exact = kronecker_factors(problem)
    draws = [kronecker_factors(problem, Sampled(1, seed)) for seed in range(200)]
    for name, (a, s) in exact.items():
        direction = torch.cos(torch.arange(len(s), dtype=torch.float64))
        for functional in (torch.trace, lambda m, v=direction: v @ m @ v):
            values = torch.stack([functional(draw[name][1]) for draw in draws])
            error = float(values.std()) / len(draws) ** 0.5
            assert abs(float(values.mean() - functional(s))) < 3 * error
        torch.testing.assert_close(draws[0][name][0], a, rtol=0, atol=0)


@pytest.mark.parametrize("case", [cases.tanh, cases.tanh_regression])
def test_many_samples_approach_the_exact_factors(case: Callable[[], Problem]) -> None:
    """The squared error falls like 1/K: from K = 1 to 400 by two decades at least."""
    problem = case()
    exact = assemble_ggn(problem)
    one, many = (
        float((assemble_ggn(problem, Sampled(k)) - exact).square().sum()) for k in (1, 400)
    )
    assert many < one / 100


def test_more_samples_begin_with_the_fewer() -> None:
    f = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.zeros(5, dtype=torch.long)
    few, more = (Sampled(k, seed=1).root(CrossEntropy(), f, y, 0) * k**0.5 for k in (2, 3))
    torch.testing.assert_close(more[:, :, :2], few)


@pytest.mark.parametrize("fisher", FISHERS.values(), ids=FISHERS)
def test_batches_change_nothing(fisher: Fisher, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cases.tanh()
    whole = assemble_ggn(problem, fisher)
    monkeypatch.setattr(terms, "BATCH_BYTES", 8 * 1000)
    assert len(list(terms.on_hessian_batches(problem, lambda x, y, first: first))) > 2
    torch.testing.assert_close(assemble_ggn(problem, fisher), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("fisher", FISHERS.values(), ids=FISHERS)
def test_corrected_eigenvalues_are_the_diagonal_in_the_basis(
    problem: Problem, fisher: Fisher, separate: bool
) -> None:
    """diag(Qᵀ F_ll Q) of the dense matrix of the same Fisher, its samples included."""
    full = assemble_ggn(problem, fisher)
    bases = kronecker_bases(problem, kronecker_factors(problem, fisher), separate)
    diagonals = ggn_diagonals(problem, bases, fisher)
    for key, basis in bases.items():
        block = full[basis.block.slice, basis.block.slice]
        eye = torch.eye(basis.block.size, dtype=torch.float64)
        m = basis.block.to_matrix(eye)  # columns: unit vectors as [W | b]
        rotated = torch.einsum(
            "ia,iwk,wb->abk", basis.outputs.vectors, m, basis.inputs.vectors
        ).flatten(0, 1)
        expected = torch.einsum("ak,kl,al->a", rotated, block, rotated)
        scale = float(full.abs().max())
        torch.testing.assert_close(
            diagonals[key].flatten(), expected, rtol=1e-9, atol=1e-12 * scale
        )


class _Own(Loss):
    """A loss for which nobody has said how to draw labels."""

    name = "own"

    def per_example(self, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (f - y).cosh().log().sum(-1)

    def hessian(self, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.diag_embed((f - y).cosh() ** -2)

    def hessian_sqrt(self, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.diag_embed(1 / (f - y).cosh())

    def check(self, f: torch.Tensor, y: torch.Tensor, where: str) -> torch.Tensor:
        return y


def test_a_loss_without_a_sampler_is_named() -> None:
    base = cases.tanh_regression()
    problem = Problem(base.model, _Own(), base.train, base.query)
    with pytest.raises(DecompositionError, match="under the loss _Own: register one"):
        kronecker_factors(problem, Sampled())
    kronecker_factors(problem, Empirical())


@pytest.mark.parametrize(
    ("samples", "seed", "said"), [(0, 0, "must be a whole number >= 1"), (1, -1, "seed")]
)
def test_impossible_samples_are_refused(samples: int, seed: int, said: str) -> None:
    with pytest.raises(DecompositionError, match=said):
        Sampled(samples, seed)
