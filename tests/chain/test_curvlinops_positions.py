"""K-FAC expand and reduce, and their EK-FAC, against curvlinops where weights are shared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import EKFAC, KFAC
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied

CROSS_LIBRARY = 1e-6


def pooled_linear() -> Problem:
    return cases.regression(
        lambda: Applied(
            lambda m, x: m.out(torch.tanh(m.inner(x))).mean(1),
            inner=nn.Linear(4, 3),
            out=nn.Linear(3, 2),
        ),
        cases.images(cases.T, 4),
        2,
    )


def without_normalisation() -> Problem:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(3, 4, 2, stride=2, bias=False),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(16, cases.CLASSES),
        )

    return cases.study(build, cases.normal(33, 1, 4, 4), n=30)


PROBLEMS = {
    "conv2d_strided": cases.conv2d_strided,
    "conv2d_padded": cases.conv2d_padded,
    "conv2d_dilated": cases.conv2d_dilated,
    "conv2d_same": cases.conv2d_same,
    "without_normalisation": without_normalisation,
    "sequence": cases.sequence,
    "pooled_linear": pooled_linear,
}
FEW_EXAMPLES = ("conv2d_strided", "conv2d_padded")
"""Where the mean patches of the examples span no basis, and EK-FAC reduce is not unique."""


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("structure", ["kfac", "ekfac"])
@pytest.mark.parametrize("case", PROBLEMS)
def test_structured_rungs_agree(case: str, structure: str, sharing: str, separate: bool) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    problem = PROBLEMS[case]()
    kinds = {"kfac": curvlinops.KFACLinearOperator, "ekfac": curvlinops.EKFACLinearOperator}
    model = problem.double_model()
    x, y = problem.train
    operator = kinds[structure](
        model,
        nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(x, y)],
        fisher_type="type-2",
        kfac_approx=sharing,
        separate_weight_and_bias=separate,
        check_deterministic=False,
    )
    rung = {"kfac": KFAC, "ekfac": EKFAC}[structure](separate_bias=separate, sharing=sharing)
    found = rung(problem)
    if any("curvature all the same" in note for note in found.notes):
        assert (structure, sharing) == ("ekfac", "reduce")
        assert case in FEW_EXAMPLES
        return
    expected = operator @ torch.eye(problem.num_parameters, dtype=torch.float64)
    _close(found.dense(), expected)


def _close(actual: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=CROSS_LIBRARY * scale)
