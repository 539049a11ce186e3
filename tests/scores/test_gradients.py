"""Scores: a dense formula in NumPy, real removals on convex problems, and rungs of one's own."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy import stats
from torch import nn

from decomposition import DecompositionError, Problem, build_chain, build_lattice, influence_scores
from decomposition.chain import LATTICE
from decomposition.curvature import (
    BlockDiagonal,
    DenseCurvature,
    EigenpairCurvature,
    NotAvailableError,
    ScaledIdentity,
    SolveCurvature,
)
from decomposition.errors import DampingError
from decomposition.scores.gradients import loss_gradients, score_grid, target_gradients
from decomposition.scores.scorers import scorer
from tests import cases
from tests.cases import CASES

DENOMINATORS = {
    "absolute": lambda mu, damping: np.abs(mu) + damping,
    "signed": lambda mu, damping: mu + damping,
    "clip": lambda mu, damping: np.maximum(mu, 0) + damping,
    "shift": lambda mu, damping: mu - min(mu.min(), 0) + damping,
}


def plain_gradients(problem: Problem, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """One backward pass of torch's own loss per example."""
    model = problem.double_model()
    loss = nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss()
    rows = []
    for i in range(len(x)):
        target = y[i : i + 1].double() if y.is_floating_point() else y[i : i + 1]
        value = loss(model(x[i : i + 1].double()), target)
        gradients = torch.autograd.grad(value, list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]).numpy())
    return np.stack(rows)


def dense_scores(problem: Problem, matrix: np.ndarray, damping: float, policy: str) -> np.ndarray:
    mu, v = np.linalg.eigh(matrix)
    inverse = (v / DENOMINATORS[policy](mu, damping)) @ v.T
    train, query = (plain_gradients(problem, *part) for part in (problem.train, problem.query))
    return query @ inverse @ train.T / len(train)


@pytest.mark.parametrize("policy", DENOMINATORS)
def test_scores_of_every_rung_are_the_dense_formula(problem: Problem, policy: str) -> None:
    damping = 0.0317
    for name, rung in build_lattice(problem).items():
        actual = influence_scores(problem, rung, damping, policy).numpy()
        expected = dense_scores(problem, rung.dense().numpy(), damping, policy)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-8 * scale, err_msg=name)


def test_gradients_of_a_linear_softmax_by_hand() -> None:
    problem = cases.linear_softmax()
    x, y = problem.train[0].numpy(), problem.train[1].numpy()
    w, b = (p.detach().numpy() for p in problem.model.parameters())
    f = x @ w.T + b
    p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
    delta = p - np.eye(3)[y]
    expected = np.concatenate(
        [(delta[:, :, None] * x[:, None, :]).reshape(len(x), -1), delta], axis=1
    )
    np.testing.assert_allclose(loss_gradients(problem).train.T, expected, rtol=1e-12, atol=1e-14)


class Convex:
    """A linear model under mean loss + (λ/2)‖θ‖², solved to convergence for any weights."""

    def __init__(self, regression: bool, damping: float, n: int = 60) -> None:
        model = cases.mlp((3, 3), nn.Identity, 0)
        make = cases.regression if regression else cases.classification
        kind = {"outputs": 3} if regression else {"classes": 3}
        problem = make(model, n=n, d_in=3, **kind)
        self.regression, self.damping = regression, damping
        self.theta = self.solve(problem, np.ones(n))
        torch.nn.utils.vector_to_parameters(
            torch.from_numpy(self.theta), problem.model.parameters()
        )
        self.problem = problem

    def solve(self, problem: Problem, weights: np.ndarray) -> np.ndarray:
        """argmin (1/N) Σ w_i ℓ_i + (λ/2)‖θ‖², N the number of all examples."""
        x, y = (part.numpy() for part in problem.train)
        ones = np.c_[x, np.ones(len(x))]
        targets = y if self.regression else np.eye(3)[y]

        def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
            w = np.c_[theta[:9].reshape(3, 3), theta[9:]]
            values, delta = self._loss(ones @ w.T, targets)
            gradient = (weights[:, None] * delta).T @ ones / len(x)
            flat = np.r_[gradient[:, :3].ravel(), gradient[:, 3]] + self.damping * theta
            return weights @ values / len(x) + 0.5 * self.damping * theta @ theta, flat

        found = scipy.optimize.minimize(
            objective, np.zeros(12), jac=True, method="BFGS", options={"gtol": 1e-11}
        )
        # BFGS stops short of its tolerance by rounding: finish with Newton on the gradient.
        root = scipy.optimize.root(lambda t: objective(t)[1], found.x, tol=1e-14)
        assert np.abs(objective(root.x)[1]).max() < 1e-12
        return root.x

    def query_losses(self, theta: np.ndarray) -> np.ndarray:
        x, y = (part.numpy() for part in self.problem.query)
        w = np.c_[theta[:9].reshape(3, 3), theta[9:]]
        targets = y if self.regression else np.eye(3)[y]
        return self._loss(np.c_[x, np.ones(len(x))] @ w.T, targets)[0]

    def _loss(self, f: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.regression:
            return ((f - targets) ** 2).mean(1), 2.0 / 3.0 * (f - targets)
        top = f.max(1, keepdims=True)
        normaliser = np.log(np.exp(f - top).sum(1, keepdims=True)) + top
        return (normaliser[:, 0] - (f * targets).sum(1)), np.exp(f - normaliser) - targets


@pytest.fixture(scope="module", params=[True, False], ids=["ridge", "logistic"])
def convex(request: pytest.FixtureRequest) -> Convex:
    return Convex(request.param, damping=0.1)


def test_score_is_the_derivative_of_the_query_loss_to_removal(convex: Convex) -> None:
    """Central difference in the weight of one example, both sides solved to convergence."""
    problem = convex.problem
    scores = influence_scores(problem, build_chain(problem)["hessian"], convex.damping).numpy()
    step = 1e-3
    for i in range(0, problem.num_examples, 15):
        weights = np.ones(problem.num_examples)
        weights[i] = 1 - step
        less = convex.query_losses(convex.solve(problem, weights))
        weights[i] = 1 + step
        more = convex.query_losses(convex.solve(problem, weights))
        slope = (less - more) / (2 * step)
        scale = np.abs(scores[:, i]).max()
        np.testing.assert_allclose(scores[:, i], slope, rtol=1e-5, atol=1e-5 * scale)


def test_score_of_the_margin_is_its_derivative_to_removal() -> None:
    """The same sign as for the loss: that of the change of what is measured."""
    convex = Convex(False, damping=0.1, n=30)
    problem = convex.problem
    gradients = target_gradients(problem, "margin")
    scores = next(score_grid(build_chain(problem)["hessian"], gradients, [convex.damping])).numpy()
    x, y = (part.numpy() for part in problem.query)

    def margins(theta: np.ndarray) -> np.ndarray:
        f = np.c_[x, np.ones(len(x))] @ np.c_[theta[:9].reshape(3, 3), theta[9:]].T
        p = (np.exp(f) / np.exp(f).sum(1, keepdims=True))[np.arange(len(y)), y]
        return np.log(p / (1 - p))

    step = 1e-3
    for i in range(0, problem.num_examples, 10):
        weights = np.ones(problem.num_examples)
        weights[i] = 1 - step
        less = margins(convex.solve(problem, weights))
        weights[i] = 1 + step
        more = margins(convex.solve(problem, weights))
        scale = np.abs(scores[:, i]).max()
        slope = (less - more) / (2 * step)
        np.testing.assert_allclose(scores[:, i], slope, rtol=1e-5, atol=1e-5 * scale)


def test_score_predicts_real_leave_one_out_retraining(convex: Convex) -> None:
    """Sign, order and value; what is left is second order in 1/N."""
    problem = convex.problem
    scores = influence_scores(problem, build_chain(problem)["ggn"], convex.damping).numpy()
    base, real = convex.query_losses(convex.theta), []
    for i in range(problem.num_examples):
        weights = np.ones(problem.num_examples)
        weights[i] = 0.0
        real.append(convex.query_losses(convex.solve(problem, weights)) - base)
    real = np.array(real).T
    clear = np.abs(real) > 0.02 * np.abs(real).max()
    assert (np.sign(scores) == np.sign(real))[clear].all()
    slope = (scores * real).sum() / (real**2).sum()
    assert 0.85 < slope < 1.0  # a removal moves the solution a little further than its derivative
    assert stats.pearsonr(scores.ravel(), real.ravel())[0] > 0.99


@pytest.mark.parametrize("rung", LATTICE)
def test_a_grid_of_dampings_is_as_many_single_calls(rung: str) -> None:
    problem = cases.gelu()
    curvature, dampings = build_lattice(problem)[rung], [1e-3, 0.1, 10.0]
    grid = score_grid(curvature, loss_gradients(problem), dampings)
    for scores, damping in zip(grid, dampings, strict=True):
        expected = influence_scores(problem, curvature, damping)
        torch.testing.assert_close(scores, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", ["gelu", "tanh_regression", "residual"])
@pytest.mark.parametrize("policy", DENOMINATORS)
def test_the_scorer_is_influence_scores_in_single_precision(case: str, policy: str) -> None:
    problem = CASES[case]()
    gradients = loss_gradients(problem)
    masks = np.random.default_rng(0).random((9, problem.num_examples)) < 0.5
    for curvature in build_lattice(problem).values():
        rung = scorer(curvature, gradients)
        for damping in (0.03, 1.0):
            exact = influence_scores(problem, curvature, damping, policy).numpy()
            scale = np.abs(exact).max()
            single = rung.scores(damping, policy)
            assert single.dtype == np.float32
            np.testing.assert_allclose(single, exact, rtol=0, atol=2e-6 * scale)
            np.testing.assert_allclose(
                rung.predicted_effects(masks, damping, policy),
                -masks.astype(float) @ exact.T,
                rtol=0,
                atol=2e-5 * scale,
            )


def test_a_scorer_follows_when_the_masks_change() -> None:
    problem = cases.gelu()
    rung = scorer(build_chain(problem)["ggn"], loss_gradients(problem))
    scores = rung.scores(0.1)
    for seed in range(20):
        masks = np.random.default_rng(seed).random((5, problem.num_examples)) < 0.5
        found = rung.predicted_effects(masks, 0.1)
        np.testing.assert_allclose(found, -masks.astype(np.float32) @ scores.T, atol=1e-4)
        del masks


def _own(problem: Problem) -> dict:
    """GGN given as eigenpairs, as blocks, by its solver, and by its solver and products."""
    matrix = build_chain(problem)["ggn"].dense()
    mu, v = torch.linalg.eigh(matrix)
    eye = torch.eye(len(matrix), dtype=torch.float64)

    def solve(right: torch.Tensor, damping: float) -> torch.Tensor:
        return torch.linalg.solve(matrix + damping * eye, right)

    blocks = {b.name: matrix[b.slice, b.slice] for b in problem.blocks}
    return {
        "eigenpairs": EigenpairCurvature(mu, v),
        "blocks": BlockDiagonal(blocks),
        "solver": SolveCurvature(len(matrix), solve),
        "products": SolveCurvature(len(matrix), solve, lambda right: matrix @ right),
    }


@pytest.mark.parametrize("form", ["eigenpairs", "blocks", "solver", "products"])
def test_a_rung_of_ones_own_scores_as_the_matrix_it_is(form: str) -> None:
    problem = cases.gelu()
    chain = build_chain(problem, extra={"mine": lambda p: _own(p)[form]})
    assert list(chain)[-1] == "mine"
    twin = chain["block_ggn" if form == "blocks" else "ggn"]
    scores, expected = (influence_scores(problem, rung, 0.05) for rung in (chain["mine"], twin))
    torch.testing.assert_close(scores, expected, rtol=1e-8, atol=1e-10)
    single = scorer(chain["mine"], loss_gradients(problem)).scores(0.05)
    np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
    if form == "solver":
        for question in (chain["mine"].eigenvalues, chain["mine"].dense):
            with pytest.raises(NotAvailableError, match="pass matvec="):
                question()
    else:
        torch.testing.assert_close(chain["mine"].dense(), twin.dense(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            chain["mine"].eigenvalues(), twin.eigenvalues(), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("k", [0, 1, 7])
def test_a_few_eigenpairs_and_a_remainder(k: int) -> None:
    problem = cases.gelu()
    mu, v = torch.linalg.eigh(build_chain(problem)["ggn"].dense())
    top, basis = mu[len(mu) - k :], v[:, len(mu) - k :]
    low_rank = EigenpairCurvature(top, basis, remainder=0.02)
    eye = torch.eye(len(mu), dtype=torch.float64)
    dense = basis @ torch.diag(top) @ basis.T + 0.02 * (eye - basis @ basis.T)
    torch.testing.assert_close(low_rank.dense(), dense, rtol=0, atol=1e-12)
    expected = torch.linalg.solve(dense + 0.1 * eye, eye)
    torch.testing.assert_close(low_rank.solve(eye, 0.1), expected, rtol=0, atol=1e-10)


def test_identity_scores_are_inner_products_of_gradients() -> None:
    problem = cases.gelu()
    scores = influence_scores(problem, ScaledIdentity(problem.num_parameters, 3.0), 1.0)
    gradients = loss_gradients(problem)
    expected = gradients.query.T @ gradients.train / (4.0 * problem.num_examples)
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-12)


NAN = float("nan")
size = attrgetter("num_parameters")
BAD_RUNGS = {
    "reserved name": (
        "kfac",
        lambda p: ScaledIdentity(size(p), 1.0),
        "the chain uses itself",
    ),
    "baseline name": ("random", lambda p: ScaledIdentity(size(p), 1.0), "uses itself"),
    "wrong size": ("mine", lambda p: ScaledIdentity(3, 1.0), "has size 3, the model has"),
    "a matrix": (
        "mine",
        lambda p: torch.eye(size(p)),
        "must be a .*Curvature, got Tensor",
    ),
    "nothing": ("mine", lambda p: None, "got NoneType"),
    "not square": ("mine", lambda p: DenseCurvature(torch.zeros(3, 2)), r"square, got .*\(3, 2\)"),
    "not symmetric": (
        "mine",
        lambda p: DenseCurvature(torch.tensor([[1.0, 2.0], [0.0, 1.0]])),
        r"not symmetric: .* differ .* by 2 .*pass \(C \+ C\.T\) / 2",
    ),
    "not finite": ("mine", lambda p: DenseCurvature(torch.full((2, 2), NAN)), "entry in row 0"),
    "skew eigenvectors": (
        "mine",
        lambda p: EigenpairCurvature(torch.ones(2), torch.tensor([[1.0, 1.0], [0.0, 1.0]])),
        "not orthonormal: VᵀV differs from I by 1",
    ),
    "nan eigenvalue": (
        "mine",
        lambda p: EigenpairCurvature(torch.tensor([NAN, 1.0]), torch.eye(2)),
        "values of the eigenpairs hold NaN",
    ),
    "nan remainder": (
        "mine",
        lambda p: EigenpairCurvature(torch.ones(1), torch.eye(2)[:, :1], NAN),
        "remainder must lie in .*, got nan",
    ),
    "nan scale": ("mine", lambda p: ScaledIdentity(size(p), NAN), "scale must lie in"),
    "no blocks": ("mine", lambda p: BlockDiagonal({}), "at least one block"),
}


@pytest.mark.parametrize("case", BAD_RUNGS)
def test_a_bad_rung_of_ones_own_is_named(case: str) -> None:
    name, make, message = BAD_RUNGS[case]
    with pytest.raises(DecompositionError, match=message):
        build_chain(cases.linear_softmax(), extra={name: make})


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda v, damping: v[:-1], r"solve returned shape \(14, 7\) for .* shape \(15, 7\)"),
        (lambda v, damping: v * NAN, "solve returned a non-finite value"),
    ],
)
def test_a_bad_solver_is_named(solve, message: str) -> None:
    problem = cases.linear_softmax()
    with pytest.raises(DecompositionError, match=message):
        influence_scores(problem, SolveCurvature(15, solve), 0.1)


def test_products_of_no_symmetric_matrix_are_named() -> None:
    shear = torch.eye(3, dtype=torch.float64)
    shear[0, 2] = 1.0
    wrong = SolveCurvature(3, lambda v, damping: v, lambda v: shear @ v)
    with pytest.raises(DecompositionError, match="not symmetric"):
        wrong.eigenvalues()


def test_a_curvature_of_another_model_is_refused() -> None:
    other = build_chain(cases.gelu())["kfac"]
    problem = cases.linear_softmax()
    with pytest.raises(DecompositionError, match="was it built for another model"):
        influence_scores(problem, other, 0.1)
    with pytest.raises(DecompositionError, match=r"scores need a .*Curvature .* got Tensor"):
        influence_scores(problem, torch.eye(15), 0.1)  # type: ignore[arg-type]


def test_negative_and_singular_dampings_are_refused() -> None:
    problem = cases.gelu()
    ggn = build_chain(problem)["ggn"]
    with pytest.raises(DampingError, match="got -1"):
        influence_scores(problem, ggn, -1.0)
    with pytest.raises(DampingError, match="singular at damping=0"):
        influence_scores(cases.one_example(), build_chain(cases.one_example())["ggn"], 0.0)


def test_vectors_may_be_arrays_and_carry_gradients() -> None:
    rung = build_chain(cases.gelu())["ekfac"]
    v = torch.ones(rung.size, requires_grad=True)
    by_array = rung.solve(np.ones(rung.size, np.float32), 0.1)  # type: ignore[arg-type]
    torch.testing.assert_close(rung.solve(v, 0.1), by_array, rtol=0, atol=0)
    assert by_array.dtype == torch.float64
    for wrong in (torch.ones(3), torch.ones(rung.size, 1, 1), torch.tensor(1.0)):
        with pytest.raises(DecompositionError, match=rf"shape \({rung.size},\) or"):
            rung.matvec(wrong)
