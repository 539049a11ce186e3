"""Weight decay as a part of the curvature: C + w I on every rung, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from decomposition import Problem, Recipe, Settings, build_chain, influence_scores, run
from decomposition.chain import build_lattice
from decomposition.chain.plan import plan_chain
from decomposition.chain.rungs import KFAC, fisher_rungs
from decomposition.errors import DecompositionError, ProblemError
from decomposition.plan_command import plan_text
from decomposition.spectrum.command import Inspection
from decomposition.spectrum.inspect import inspect_problem
from tests import cases, general
from tests.oracles import autograd

W = 0.05


def decayed(problem: Problem, optimizer: str = "sgd") -> Problem:
    recipe = Recipe(optimizer=optimizer, weight_decay=W, epochs=2)  # type: ignore[arg-type]
    return replace(problem, recipe=recipe, weight_decay_in_curvature=True)


@pytest.mark.parametrize("make", [cases.residual, cases.tanh_regression, general.cnn, general.tied])
def test_every_rung_has_the_decay_on_its_diagonal(make: Callable[[], Problem]) -> None:
    problem = make()
    plain = build_lattice(problem, fisher_rungs())
    found = build_lattice(decayed(problem), fisher_rungs())
    for rung, curvature in found.items():
        eye = torch.eye(curvature.size, dtype=torch.float64)
        torch.testing.assert_close(
            curvature.dense(), plain[rung].dense() + W * eye, rtol=1e-10, atol=1e-10
        )
        assert curvature.notes == plain[rung].notes
    expected = autograd.hessian(problem)
    expected += W * torch.eye(len(expected), dtype=torch.float64)
    torch.testing.assert_close(found["hessian"].dense(), expected, rtol=1e-8, atol=1e-10)
    for rung in ("ggn", "ekfac", "kfac"):
        torch.testing.assert_close(
            influence_scores(decayed(problem), found[rung], 0.1),
            influence_scores(problem, plain[rung], 0.1 + W),
            rtol=1e-8,
            atol=1e-10,
        )


def test_a_run_says_what_its_curvature_contains() -> None:
    problem = decayed(cases.tanh())
    settings = Settings(masks=12, second_order_masks=4, resamples=100, damping_points=3)
    result = run(problem, settings=settings)
    assert any("weight_decay=0.05 is added to all eigenvalues" in note for note in problem.notes)
    lowest = result["spectrum"]["eigenvalues"].sel(rung=["ggn", "ekfac", "kfac"]).min()
    assert float(lowest) > W * (1 - 1e-6)


def test_where_a_decay_has_no_place_it_is_refused_with_the_way_out() -> None:
    problem = cases.tanh()
    with pytest.raises(ProblemError, match="optimizer='adam'"):
        decayed(problem, "adamw")
    found = decayed(problem, "adam")
    with pytest.raises(DecompositionError, match="leave it out"):
        build_chain(found, plan=plan_chain(found, 1000))
    with pytest.raises(DecompositionError, match="leave it out"):
        run(found, memory=1e-9)
    diverging = replace(found, recipe=replace(found.recipe, lr=1e30))
    with pytest.raises(DecompositionError, match="leave it out"):
        run(diverging, memory=1e-9)  # before it is trained
    with pytest.raises(DecompositionError, match="leave it out"):
        plan_text(found, Settings(memory=1e-9))
    with pytest.raises(DecompositionError, match="leave it out"):
        inspect_problem(found, plan=Inspection(method="estimate").plan(found))
    with pytest.raises(DecompositionError, match="or factored_damping"):
        build_chain(found, {"pi": KFAC(factored_damping=True)})
    with pytest.raises(ProblemError, match="leave out weight_decay_in_curvature"):
        run(found, settings=Settings(target="pbrf"))
