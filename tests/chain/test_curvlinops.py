"""K-FAC and EK-FAC against curvlinops' type-2 factors, weight and bias together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from decomposition.chain import build_chain
from tests import cases

CROSS_LIBRARY = 1e-6


@pytest.mark.parametrize("case", ["relu", "tanh", "gelu", "tanh_regression", "deep_linear"])
@pytest.mark.parametrize("rung", ["kfac", "ekfac"])
def test_structured_rungs_agree(case: str, rung: str) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    operators: dict[str, Callable] = {
        "kfac": curvlinops.KFACLinearOperator,
        "ekfac": curvlinops.EKFACLinearOperator,
    }
    problem = cases.CASES[case]()
    model = problem.double_model()
    x, y = problem.train
    loss = nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss()
    operator = operators[rung](
        model,
        loss,
        list(model.parameters()),
        [(x.double(), y)],
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    expected = operator @ torch.eye(problem.parameters, dtype=torch.float64)
    actual = build_chain(problem)[rung].dense()
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=CROSS_LIBRARY, atol=CROSS_LIBRARY * scale)
