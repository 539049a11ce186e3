"""K-FAC and EK-FAC against curvlinops: Fishers, separate biases, and both kinds of damping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from decomposition.chain import EKFAC, KFAC
from decomposition.curvature import EXACT, Empirical, Fisher
from decomposition.problem import Problem
from tests import cases

CROSS_LIBRARY = 1e-6
PROBLEMS = ["relu", "tanh", "gelu", "tanh_regression", "deep_linear"]
FISHERS: dict[str, Fisher] = {"type-2": EXACT, "empirical": Empirical()}
DAMPING = 0.01


def _operator(problem: Problem, structure: str, fisher: str, separate: bool) -> Any:
    curvlinops = pytest.importorskip("curvlinops")
    kinds = {"kfac": curvlinops.KFACLinearOperator, "ekfac": curvlinops.EKFACLinearOperator}
    model = problem.double_model()
    x, y = problem.train
    return kinds[structure](
        model,
        nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(x.double(), y)],
        fisher_type=fisher,
        separate_weight_and_bias=separate,
        check_deterministic=False,
    )


def _scale(problem: Problem, fisher: str) -> float:
    """curvlinops takes a mean squared error for C terms, so its empirical Fisher is C times ours.

    Ours is the second moment of the loss's own gradients; the GGN is the same for both.
    """
    y = problem.train[1]
    return 1.0 / y.shape[1] if fisher == "empirical" and y.is_floating_point() else 1.0


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=CROSS_LIBRARY, atol=CROSS_LIBRARY * scale)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("fisher", FISHERS)
@pytest.mark.parametrize("structure", ["kfac", "ekfac"])
@pytest.mark.parametrize("case", PROBLEMS)
def test_structured_rungs_agree(case: str, structure: str, fisher: str, separate: bool) -> None:
    problem = cases.CASES[case]()
    operator = _operator(problem, structure, fisher, separate)
    rung = {"kfac": KFAC, "ekfac": EKFAC}[structure](FISHERS[fisher], separate)
    expected = operator @ torch.eye(problem.num_parameters, dtype=torch.float64)
    _close(rung(problem).dense(), _scale(problem, fisher) * expected)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("fisher", FISHERS)
@pytest.mark.parametrize("structure", ["kfac", "ekfac"])
@pytest.mark.parametrize("case", ["tanh", "tanh_regression"])
def test_exactly_damped_inverses_agree(
    case: str, structure: str, fisher: str, separate: bool
) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    problem = cases.CASES[case]()
    operator, scale = _operator(problem, structure, fisher, separate), _scale(problem, fisher)
    inverse = curvlinops.KFACInverseLinearOperator(
        operator, damping=DAMPING / scale, use_exact_damping=True
    )
    rung = {"kfac": KFAC, "ekfac": EKFAC}[structure](FISHERS[fisher], separate)
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    _close(rung(problem).solve(eye, DAMPING), (inverse @ eye) / scale)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("fisher", FISHERS)
@pytest.mark.parametrize("case", ["tanh", "gelu", "tanh_regression"])
def test_inverses_with_factored_damping_agree(case: str, fisher: str, separate: bool) -> None:
    """Biases of their own included: they share the damped S of their layer's weight."""
    curvlinops = pytest.importorskip("curvlinops")
    problem = cases.CASES[case]()
    operator, scale = _operator(problem, "kfac", fisher, separate), _scale(problem, fisher)
    inverse = curvlinops.KFACInverseLinearOperator(
        operator, damping=DAMPING / scale, use_heuristic_damping=True
    )
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    rung = KFAC(FISHERS[fisher], separate, factored_damping=True)
    _close(rung(problem).solve(eye, DAMPING), (inverse @ eye) / scale)
