"""Every approximation against its definition in NumPy, dense and beyond."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from decomposition import Recipe
from decomposition.chain import build_chain
from decomposition.chain.approximations import (
    METHODS,
    approximations,
    block_basis_kfac_values,
    cg,
    datainf,
    diagonal,
    kfac_basis_block_values,
    kfac_trace,
    low_rank,
    neumann,
    projected,
    projected_layers,
)
from decomposition.chain.plan import plan_chain
from decomposition.curvature import Curvature, NotAvailableError
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.errors import DecompositionError
from decomposition.layers import ExactBlock
from decomposition.memory import OutOfMemoryError
from decomposition.problem import Problem
from tests.chain.approximations.shared import (
    PROBLEMS,
    chain_of,
    columns,
    damped_inverse,
    ggn,
)

FORMS = pytest.mark.parametrize("dense", [True, False], ids=["dense", "beyond"])
EVERY = pytest.mark.parametrize("name", list(PROBLEMS))


@cache
def problem_of(name: str) -> Problem:
    return PROBLEMS[name]()


def solved(curvature: Curvature, problem: Problem, damping: float) -> np.ndarray:
    return curvature.solve(columns(problem), damping).numpy()


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def scale_of(problem: Problem) -> float:
    """A damping about the mean non-zero eigenvalue."""
    return float(np.trace(ggn(problem))) / min(problem.num_parameters, problem.num_examples)


@FORMS
@EVERY
def test_diagonal_is_that_of_the_ggn(name: str, dense: bool) -> None:
    problem = problem_of(name)
    found = chain_of(problem, {"mine": diagonal()}, dense)["mine"]
    close(found.dense().numpy(), np.diag(np.diag(ggn(problem))))


@FORMS
@EVERY
def test_kfac_trace_is_kfac_with_the_trace_of_every_block(name: str, dense: bool) -> None:
    problem = problem_of(name)
    chain = chain_of(problem, {"mine": kfac_trace()}, dense)
    matrix = ggn(problem)
    kfac, mine = chain["kfac"].diagonal_blocks(), chain["mine"].diagonal_blocks()
    for block in problem.blocks:
        exact, product = matrix[block.slice, block.slice], kfac[block.name].dense().numpy()
        expected = product * np.trace(exact) / np.trace(product)
        close(mine[block.name].dense().numpy(), expected)


@EVERY
def test_exchanged_spectra_are_sorted_into_each_others_vectors(name: str) -> None:
    """Over what is repeated, such as zero, they are averaged."""
    problem = problem_of(name)
    exchanged = {"values": block_basis_kfac_values(), "vectors": kfac_basis_block_values()}
    chain = chain_of(problem, exchanged)
    matrix, damping, v = ggn(problem), scale_of(problem), columns(problem).numpy()
    kfac = chain["kfac"].dense().numpy()
    for block in problem.blocks:
        part = block.slice
        exact, product = (np.linalg.eigh(m[part, part]) for m in (matrix, kfac))
        for rung, (own, basis), (other, _) in (
            ("values", exact, product),
            ("vectors", product, exact),
        ):
            mine = chain[rung].diagonal_blocks()[block.name]
            places = np.flatnonzero(np.diff(own) > 1e-12 * own.max()) + 1
            given = [np.full(len(some), some.mean()) for some in np.split(other, places)]
            values = np.concatenate(given)
            close(mine.dense().numpy(), basis @ np.diag(values) @ basis.T, 1e-8)
            inverse = basis @ np.diag(1 / (values + damping)) @ basis.T
            close(mine.solve(v[part], damping).numpy(), inverse @ v[part], 1e-7)


def test_exchanged_spectra_leave_layers_without_factors_as_they_are() -> None:
    problem = problem_of("cnn")
    exchanged = {"values": block_basis_kfac_values(), "vectors": kfac_basis_block_values()}
    chain, matrix = chain_of(problem, exchanged), ggn(problem)
    (norm,) = [block for block in problem.blocks if isinstance(block, ExactBlock)]
    for rung in exchanged:
        mine = chain[rung].diagonal_blocks()[norm.name].dense().numpy()
        close(mine, matrix[norm.slice, norm.slice])


def test_exchanged_spectra_need_the_blocks() -> None:
    problem = problem_of("tanh")
    with pytest.raises(OutOfMemoryError, match=r"block_basis_kfac_values.*raise --memory"):
        chain_of(problem, {"mine": block_basis_kfac_values()}, dense=False)


@FORMS
@EVERY
@pytest.mark.parametrize("rest", ["mean", "drop"])
def test_low_rank_keeps_the_leading_eigenpairs(name: str, dense: bool, rest: str) -> None:
    problem, k = problem_of(name), 4
    chain = chain_of(problem, {"mine": low_rank(k, rest=rest)}, dense)  # type: ignore[arg-type]
    matrix, damping = ggn(problem), scale_of(problem)
    values, vectors = np.linalg.eigh(matrix)
    top, inside = vectors[:, -k:], values[-k:]
    others = (np.trace(matrix) - inside.sum()) / (len(matrix) - k)
    outside = 1.0 / (others + damping) if rest == "mean" else 0.0
    inverse = top @ np.diag(1.0 / (inside + damping) - outside) @ top.T
    inverse += outside * np.eye(len(matrix))
    close(solved(chain["mine"], problem, damping), inverse @ columns(problem).numpy(), 1e-6)
    if rest == "mean":
        assert chain["mine"].trace() == pytest.approx(np.trace(matrix))


@FORMS
@EVERY
def test_projected_is_the_ggn_in_a_subspace(name: str, dense: bool) -> None:
    """M (Mᵀ G M + λI)⁻¹ Mᵀ for the subspace that is spanned by its own eigenvectors."""
    problem, k = problem_of(name), 5
    found = chain_of(problem, {"mine": projected(k)}, dense)["mine"]
    unit = torch.eye(problem.num_parameters, dtype=torch.float64)
    inverse = found.solve(unit, scale_of(problem)).numpy()
    assert np.linalg.matrix_rank(inverse, tol=1e-10 * np.abs(inverse).max()) == k
    m = np.linalg.svd(inverse)[0][:, :k]
    small = damped_inverse(m.T @ ggn(problem) @ m, scale_of(problem))
    close(inverse, m @ small @ m.T)


def test_a_subspace_depends_on_its_seed_alone() -> None:
    problem = problem_of("tanh")
    one, again, other = (projected(3, seed)(problem).dense() for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


@FORMS
@EVERY
def test_projected_with_all_dimensions_is_the_ggn(name: str, dense: bool) -> None:
    problem, damping = problem_of(name), scale_of(problem_of(name))
    extra = {"mine": projected(problem.num_parameters)}
    expected = damped_inverse(ggn(problem), damping) @ columns(problem).numpy()
    close(solved(chain_of(problem, extra, dense)["mine"], problem, damping), expected)


@FORMS
@EVERY
def test_projected_layers_are_kronecker_projections_of_their_blocks(name: str, dense: bool) -> None:
    problem, damping, matrix = problem_of(name), scale_of(problem_of(name)), ggn(problem_of(name))
    blocks = chain_of(problem, {"mine": projected_layers(2)}, dense)["mine"].diagonal_blocks()
    for block in problem.blocks:
        exact = matrix[block.slice, block.slice]
        unit = torch.eye(block.size, dtype=torch.float64)
        inverse = blocks[block.name].solve(unit, damping).numpy()
        if isinstance(block, ExactBlock):
            close(inverse, damped_inverse(exact, damping))
            continue
        rank = block.groups * min(2, block.width) * min(2, block.d_out // block.groups)
        m = np.linalg.svd(inverse)[0][:, :rank]
        close(inverse, m @ damped_inverse(m.T @ exact @ m, damping) @ m.T)
        if block.groups == 1:  # m mᵀ = (V_S V_Sᵀ) ⊗ (V_A V_Aᵀ): rank one when rearranged
            order = block.to_matrix(torch.arange(block.size)[:, None]).flatten().numpy()
            d = (block.d_out, block.width)
            outer = (m @ m.T)[np.ix_(order, order)].reshape(*d, *d).transpose(0, 2, 1, 3)
            singular = np.linalg.svd(outer.reshape(d[0] ** 2, d[1] ** 2), compute_uv=False)
            assert singular[1] < 1e-9 * singular[0]


@FORMS
@EVERY
def test_projected_layers_with_all_columns_are_the_blocks(name: str, dense: bool) -> None:
    problem = problem_of(name)
    chain = chain_of(problem, {"mine": projected_layers(64)}, dense)
    expected = build_chain(problem)["block_ggn"].solve(columns(problem), scale_of(problem))
    close(solved(chain["mine"], problem, scale_of(problem)), expected.numpy())


@FORMS
@EVERY
def test_datainf_is_the_mean_of_the_examples_inverses(name: str, dense: bool) -> None:
    problem, damping = problem_of(name), 0.05
    gradients = per_example_gradients(problem, *problem.rows("train")).numpy()
    v = columns(problem).numpy()
    expected = np.zeros_like(v)
    for block in problem.blocks:
        for g in gradients[:, block.slice]:
            expected[block.slice] += damped_inverse(np.outer(g, g), damping) @ v[block.slice]
    found = chain_of(problem, {"mine": datainf()}, dense)["mine"]
    close(solved(found, problem, damping), expected / problem.num_examples)


@FORMS
@EVERY
@pytest.mark.parametrize("of", ["ggn", "hessian"])
def test_neumann_is_its_recurrence(name: str, dense: bool, of: str) -> None:
    problem, damping, steps = problem_of(name), scale_of(problem_of(name)), 7
    matrix = build_chain(problem)[of].dense().numpy()
    rate = 1.0 / (np.abs(np.linalg.eigvalsh(matrix)).max() + damping)
    v = columns(problem).numpy()
    x = rate * v
    for _ in range(steps):
        x = x + rate * (v - matrix @ x - damping * x)
    found = chain_of(problem, {"mine": neumann(steps, of)}, dense)["mine"]  # type: ignore[arg-type]
    close(solved(found, problem, damping), x, 1e-6)


@FORMS
@EVERY
def test_neumann_preconditioned_is_its_recurrence(name: str, dense: bool) -> None:
    problem, damping, steps = problem_of(name), scale_of(problem_of(name)), 5
    chain = build_chain(problem)
    inverse = damped_inverse(chain["ekfac"].dense().numpy(), damping)
    matrix = chain["ggn"].dense().numpy() + damping * np.eye(problem.num_parameters)
    rate = 1.0 / np.linalg.eigvals(inverse @ matrix).real.max()
    v = columns(problem).numpy()
    x = rate * inverse @ v
    for _ in range(steps):
        x = x + rate * inverse @ (v - matrix @ x)
    found = chain_of(problem, {"mine": neumann(steps, preconditioned=True)}, dense)["mine"]
    close(solved(found, problem, damping), x, 1e-5)


@pytest.mark.parametrize("name", ["tanh", "cnn"])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_neumann_converges_to_the_ggn(name: str, preconditioned: bool) -> None:
    problem, damping = problem_of(name), scale_of(problem_of(name))
    expected = damped_inverse(ggn(problem), damping) @ columns(problem).numpy()
    errors = []
    for steps in (2, 8, 32, 300):
        found = neumann(steps, preconditioned=preconditioned)(problem)
        errors.append(np.linalg.norm(solved(found, problem, damping) - expected))
    assert errors[0] > errors[1] > errors[2]
    assert errors[3] < 1e-6 * np.linalg.norm(expected)


def textbook_cg(matrix: np.ndarray, b: np.ndarray, steps: int, inverse: np.ndarray) -> np.ndarray:
    """Saad 2003, algorithm 9.1, for one right-hand side."""
    x, r = np.zeros_like(b), b.copy()
    z = inverse @ r
    p = z.copy()
    for _ in range(steps):
        image = matrix @ p
        alpha = (r @ z) / (p @ image)
        x, new = x + alpha * p, r - alpha * image
        z_new = inverse @ new
        p = z_new + (new @ z_new) / (r @ z) * p
        r, z = new, z_new
    return x


@FORMS
@EVERY
@pytest.mark.parametrize("preconditioned", [False, True])
def test_cg_takes_the_textbooks_steps(name: str, dense: bool, preconditioned: bool) -> None:
    problem, damping, steps = problem_of(name), scale_of(problem_of(name)), 4
    matrix = ggn(problem) + damping * np.eye(problem.num_parameters)
    ekfac = build_chain(problem)["ekfac"].dense().numpy()
    inverse = damped_inverse(ekfac, damping) if preconditioned else np.eye(len(matrix))
    expected = np.stack(
        [textbook_cg(matrix, b, steps, inverse) for b in columns(problem).numpy().T], 1
    )
    extra = {"mine": cg(steps, preconditioned=preconditioned)}
    close(solved(chain_of(problem, extra, dense)["mine"], problem, damping), expected)


WHOLE: dict[str, Callable[[int], object]] = {
    "cg": cg,
    "cg, preconditioned": lambda p: cg(p, preconditioned=True),
    "low_rank": low_rank,
    "low_rank, drop": lambda p: low_rank(p, rest="drop"),
}


@FORMS
@EVERY
@pytest.mark.parametrize("method", list(WHOLE))
def test_with_as_many_steps_or_pairs_as_parameters_it_is_the_ggn(
    name: str, method: str, dense: bool
) -> None:
    problem, damping = problem_of(name), scale_of(problem_of(name))
    extra = {"mine": WHOLE[method](problem.num_parameters)}
    expected = damped_inverse(ggn(problem), damping) @ columns(problem).numpy()
    found = chain_of(problem, extra, dense)["mine"]  # type: ignore[arg-type]
    close(solved(found, problem, damping), expected)


@pytest.mark.parametrize("policy", ["absolute", "signed", "clip"])
def test_cg_on_h_follows_the_policy_for_negative_eigenvalues(policy: str) -> None:
    problem, damping = problem_of("tanh"), 0.3
    mu, vectors = np.linalg.eigh(build_chain(problem)["hessian"].dense().numpy())
    taken = {"absolute": np.abs(mu), "signed": mu, "clip": mu.clip(0)}[policy] + damping
    expected = vectors @ np.diag(1.0 / taken) @ vectors.T @ columns(problem).numpy()
    found = cg(problem.num_parameters, "hessian")(problem)
    close(found.solve(columns(problem), damping, policy).numpy(), expected, 1e-7)


def test_cg_on_an_indefinite_h_with_a_preconditioner_has_no_solution_and_says_so() -> None:
    problem = problem_of("tanh")
    rung = cg(20, "hessian", preconditioned=True)(problem)
    found = rung.solutions(columns(problem), [1e-4, 50.0])
    assert not bool(found.x[0].isfinite().any())
    assert bool(found.x[1].isfinite().all())
    assert "not positive definite" in found.failures[0]


def test_solvers_say_that_they_have_no_spectrum() -> None:
    problem = problem_of("tanh")
    for method in (cg(2), neumann(2), datainf()):
        rung = method(problem)
        for ask in (rung.eigenvalues, rung.dense):
            with pytest.raises(NotAvailableError):
                ask()


@pytest.mark.parametrize("name", list(METHODS))
def test_weight_decay_in_the_curvature_is_as_much_damping(name: str) -> None:
    plain, decay = problem_of("cnn"), 0.03
    recipe = Recipe(weight_decay=decay)
    decayed = replace(plain, recipe=recipe, weight_decay_in_curvature=True)
    (method,) = approximations(name).values()
    close(solved(method(decayed), decayed, 0.1), solved(method(plain), plain, 0.1 + decay), 1e-8)


def test_what_does_not_fit_is_refused_by_name() -> None:
    problem = problem_of("many_parameters")
    with pytest.raises(OutOfMemoryError, match=r"LowRank\(k=115.*raise --memory"):
        build_chain(problem, {"mine": low_rank(115)}, plan_chain(problem, 1, krylov_steps=1))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("kfac", "unknown approximation 'kfac'"),
        ("low_rank:ten", "does not take 'ten'"),
        ("kpsvd:3", "no arguments"),
        ("cg,cg", "twice"),
        ("cg:0", "whole number >= 1"),
    ],
)
def test_a_specification_says_what_is_wrong_with_it(written: str, said: str) -> None:
    with pytest.raises(DecompositionError, match=said):
        approximations(written)


def test_a_specification_names_its_rungs_as_it_is_written() -> None:
    found = approximations("kpsvd, low_rank:50:7:drop,cg:3:hessian:ekfac")
    assert list(found) == ["kpsvd", "low_rank:50:7:drop", "cg:3:hessian:ekfac"]
    assert found["low_rank:50:7:drop"] == low_rank(50, 7, "drop")
    assert found["cg:3:hessian:ekfac"] == cg(3, "hessian", True)
    assert approximations("") == {}
