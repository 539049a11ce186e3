"""Which form each rung takes, by sizes and a budget alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from decomposition import Problem, Settings, build_chain
from decomposition.chain.cost import Rates, product_seconds
from decomposition.chain.plan import Plan, plan_chain
from decomposition.curvature.dual import DualCurvature
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.names import CHAIN
from decomposition.plan_command import plan_text
from tests import cases

SMALL, HUGE = 1 << 18, 1 << 34


def images(examples: int, outputs: int = 3) -> Problem:
    """A convolutional network of 163 parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten())
    model.append(nn.Linear(4 * 9, outputs))
    x = torch.randn(examples + 4, 1, 3, 3)
    y = torch.arange(examples + 4) % outputs
    train, query = (x[:-4], y[:-4]), (x[-4:], y[-4:])
    return Problem(model, nn.CrossEntropyLoss(), train, query, name="images")


def forms(plan: Plan) -> list[str]:
    """In chain order."""
    return [plan.way(rung) for rung in CHAIN]


def test_everything_is_dense_where_it_fits() -> None:
    plan = plan_chain(images(10), HUGE)
    assert forms(plan) == ["dense", "dense", "dense", "structured", "structured"]
    assert plan.dense


def test_the_dual_form_needs_fewer_rows_than_parameters() -> None:
    few, many = plan_chain(images(8), 1 << 20), plan_chain(images(100), 1 << 20)
    assert forms(few)[:3] == ["matrix-free", "dual", "dual"]
    assert forms(many)[:3] == ["matrix-free", "matrix-free", "matrix-free"]
    assert "N·C = 300 is not less than P = 151" in many.choices["ggn"].reason


def test_gram_matrices_have_to_fit_too() -> None:
    plan = plan_chain(images(8), SMALL // 4)
    assert forms(plan)[:3] == ["matrix-free"] * 3
    assert "Gram matrices" in plan.choices["ggn"].reason


def test_a_chain_is_built_as_planned() -> None:
    problem = images(8)
    chain = build_chain(problem, plan=plan_chain(problem, 1 << 20))
    assert list(chain) == list(CHAIN)
    assert isinstance(chain["hessian"], MatrixFreeCurvature)
    assert isinstance(chain["ggn"], DualCurvature)
    dense = build_chain(problem)
    v = torch.randn(problem.num_parameters, 2, dtype=torch.float64)
    for rung in CHAIN:
        torch.testing.assert_close(chain[rung].matvec(v), dense[rung].matvec(v), atol=1e-10, rtol=0)


@pytest.mark.parametrize("memory", [None, 1e-3])
def test_the_plan_is_told_in_words(memory: float | None) -> None:
    text = plan_text(images(8), Settings(memory=memory))
    assert "images: P = 151 parameters, N = 8 training examples, C = 3 outputs" in text
    assert ("Krylov" in text) == ("Spectra and errors" in text) == (memory is not None)
    for rung in CHAIN:
        assert rung in text


@pytest.mark.parametrize(("case", "same"), [(cases.relu, True), (cases.tanh, False)])
def test_a_rung_that_is_another_one_costs_nothing(case: Callable[[], Problem], same: bool) -> None:
    text = plan_text(case())
    assert ("the same as block_ggn in this model" in text) == same
    assert ("the same as ekfac in this model" in text) == same


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_plan_for_a_device_that_is_not_there() -> None:
    command = [sys.executable, "-m", "decomposition.cli", "plan", "wine", "--device", "cuda"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 1
    assert "device cuda is not available" in found.stderr


def test_what_is_exact_is_timed_in_float64() -> None:
    """Dual sweeps and factors are float64 whatever the precision of the matrix-free products."""
    exact, single = (Rates.measure(images(8), products) for products in ("float64", "float32"))
    assert exact.sweep == exact.exact_sweep > 0
    assert single.sweep != single.exact_sweep
    plan = plan_chain(images(8), 1 << 20, "float32")
    assert plan.way("ggn") == "dual"
    slower = replace(single, exact_sweep=10 * single.exact_sweep)
    before, after = (product_seconds(images(8), plan, rates) for rates in (single, slower))
    assert after["ggn"] == pytest.approx(10 * before["ggn"])
    assert after["hessian"] == before["hessian"]


def test_the_plan_says_what_retraining_would_take() -> None:
    """Nine models, 20 epochs of one batch of four; the limit binds large runs alone."""
    settings = Settings(masks=7, second_order_masks=2, retrain_hours=0.0)
    problem = images(8)
    small, large = (plan_text(problem, replace(settings, memory=m)) for m in (None, 1e-3))
    for text in (small, large):
        assert "Retraining 9 models for the LDS (--masks 7), 20 steps each: about" in text
    assert "--retrain-hours" not in small
    assert "more than --retrain-hours (0)" in large
    assert "--bank" in large
    assert "--retrain-hours" not in plan_text(problem, Settings(memory=1e-3, masks=7))


def test_the_command_prints_the_plan() -> None:
    command = [sys.executable, "-m", "decomposition.cli", "plan", "wine", "--quick"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"^hessian +dense ", found.stdout, re.MULTILINE)
