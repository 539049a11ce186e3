"""Every rung in every form that a plan may give it: the same matrix, and never a larger one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from decomposition import Problem
from decomposition.chain import BlockGGN, build_chain, build_lattice, fisher_rungs
from decomposition.chain.paper_protocol import ladder_rungs
from decomposition.chain.plan import UNLIMITED, Plan, plan_chain
from decomposition.curvature import Curvature
from decomposition.errors import DecompositionError
from decomposition.names import LATTICE
from decomposition.problems.networks import mlp
from tests import general
from tests.cases import classification

NOTHING = 1
"""Bytes: no matrix fits."""


def few_parameters() -> Problem:
    """P = 43 < N·C = 72."""
    return classification(mlp((4, 5, 3), nn.Tanh, 0))


def many_parameters() -> Problem:
    """P = 115 > N·C = 36."""
    return classification(mlp((4, 14, 3), nn.Tanh, 0), n=12)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    one.__name__: one for one in (few_parameters, many_parameters, general.cnn, general.tied)
}
EXTRA = {**fisher_rungs(), **ladder_rungs()}
"""Sampled and empirical Fishers, and the rungs of the paper's protocol."""


def by_gram_matrices(problem: Problem) -> Plan:
    """Every Gauss–Newton matrix by its rows, however many there are of them."""
    return replace(
        plan_chain(problem, NOTHING),
        gauss_newton=lambda rows: ("dual" if rows < problem.num_parameters else "dense", 0, ""),
    )


PLANS: dict[str, Callable[[Problem], Plan]] = {
    "matrix-free": lambda problem: plan_chain(problem, NOTHING),
    "dual": by_gram_matrices,
}


@cache
def dense(name: str) -> tuple[Problem, dict[str, Curvature]]:
    problem = PROBLEMS[name]()
    return problem, build_lattice(problem, EXTRA, plan_chain(problem, UNLIMITED))


@cache
def planned(name: str, form: str) -> dict[str, Curvature]:
    problem, _ = dense(name)
    return build_lattice(problem, EXTRA, PLANS[form](problem))


@pytest.mark.parametrize("rung", [*LATTICE, *EXTRA])
@pytest.mark.parametrize("form", list(PLANS))
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_a_rung_is_the_same_matrix_in_every_form(name: str, form: str, rung: str) -> None:
    problem, exact = dense(name)
    found, expected = planned(name, form)[rung], exact[rung].dense()
    image = found.matvec(torch.eye(problem.num_parameters, dtype=torch.float64))
    scale = float(expected.abs().max())
    torch.testing.assert_close(image, expected, rtol=1e-8, atol=1e-10 * scale)
    trace = found.trace()
    slack = 4.0 * trace.error + 1e-9 * scale * problem.num_parameters
    assert abs(trace - exact[rung].trace()) <= slack


@pytest.mark.parametrize("rung", ["block_ggn", "block_ggn_split", "ggn_mc1", "block_hessian"])
@pytest.mark.parametrize("form", list(PLANS))
def test_solutions_are_the_same_in_every_form(form: str, rung: str) -> None:
    problem, exact = dense("many_parameters")
    v = torch.randn(
        problem.num_parameters, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    found = planned("many_parameters", form)[rung]
    damping = 0.2 * float(exact[rung].eigenvalues().abs().max())
    expected = exact[rung].solve(v, damping)
    assert float((found.solve(v, damping) - expected).norm() / expected.norm()) < 1e-5


def test_weights_and_biases_apart_never_form_the_matrix() -> None:
    """P = 10⁵ parameters, 12 rows: P × P would be 80 GB."""
    problem = classification(mlp((4, 300, 300, 3), nn.Tanh, 0), n=4)
    for memory in (1 << 28, NOTHING):
        plan = plan_chain(problem, memory)
        found = build_chain(problem, {"apart": BlockGGN(separate_bias=True)}, plan)["apart"]
        assert found.eigenbasis is None
        v = torch.ones(problem.num_parameters, 1, dtype=torch.float64)
        torch.testing.assert_close(
            float((v.T @ found.matvec(v)).sum()), _along_ones(problem), rtol=1e-8, atol=0.0
        )


def _along_ones(problem: Problem) -> float:
    """vᵀ B v of weights and biases apart, from the Jacobian of each tensor alone."""
    total, (x, y) = 0.0, problem.rows("train")
    model = problem.double_model()
    state = {name: p.detach() for name, p in model.named_parameters()}
    for name in state:

        def along(t: torch.Tensor, name: str = name) -> torch.Tensor:
            moved = {**state, name: state[name] + t}
            return torch.func.functional_call(model, moved, (x.double(),))

        zero = torch.zeros((), dtype=torch.float64)
        f, change = torch.func.jvp(along, (zero,), (zero + 1.0,))
        curvature = problem.loss_function.hessian(f, y)
        total += float(torch.einsum("nc,ncd,nd->", change, curvature, change)) / len(f)
    return total


def test_a_lattice_that_is_too_dear_is_refused_with_the_way_out() -> None:
    """A convolutional network's H has no terms, from which its diagonal could be read."""
    problem = general.cnn()
    plan = plan_chain(problem, NOTHING, krylov_steps=1)
    assert set(plan.choices) < set(LATTICE)
    with pytest.raises(DecompositionError, match=r"own order alone.*raise --memory"):
        build_lattice(problem, plan=plan)
    assert not plan_chain(problem, UNLIMITED, krylov_steps=1).no_lattice
