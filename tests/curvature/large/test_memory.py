"""What fits into little memory is what fits into much: fewer examples and columns at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from decomposition.attribution.streamed import StreamedScores
from decomposition.curvature.large import dual_rungs
from decomposition.curvature.large.evaluation import Evaluation
from decomposition.curvature.large.jacobian import SweptRows
from decomposition.curvature.large.products import ggn_product, hessian_product
from decomposition.device import OutOfMemoryError
from decomposition.problem import Problem
from tests import general
from tests.memory import memory_for

COLUMNS = 12


def pooled() -> Problem:
    """42 parameters, 300 activations of every example: columns are small, sweeps are not."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(10),
            nn.Flatten(),
            nn.Linear(3, 3),
        )

    return general.study(build, general.images(1, 10, 10))


def columns(size: int) -> Tensor:
    return general.normal(size, COLUMNS)


def swept(problem: Problem) -> SweptRows:
    return SweptRows(problem, Evaluation(problem))


QUANTITIES: dict[str, Callable[[Problem], tuple[Callable[[Tensor], Tensor], int]]] = {
    "hessian": lambda p: (hessian_product(p).matvec, p.parameters),
    "ggn": lambda p: (ggn_product(p).matvec, p.parameters),
    "single precision": lambda p: (ggn_product(p, torch.float32).matvec, p.parameters),
    "rows": lambda p: (swept(p).forward, p.parameters),
    "transposed rows": lambda p: (swept(p).transposed, p.examples * p.outputs),
    "scores": lambda p: (StreamedScores(p).along, p.parameters),
}


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_sweeps_with_memory_for_one_column_of_two_examples(quantity: str) -> None:
    work, size = QUANTITIES[quantity](pooled())
    v = columns(size)
    whole = work(v)
    with memory_for(700) as refused:
        found = work(v)
        failures = len(refused)
        work(v)
    assert failures > 4  # examples and columns were halved
    assert len(refused) == failures  # and stay so the next time
    rounding = 1e-6 if quantity == "single precision" else 1e-14
    torch.testing.assert_close(found, whole, rtol=0, atol=rounding * float(whole.abs().max()))


def test_no_memory_for_one_example_is_said_with_the_way_out() -> None:
    product = hessian_product(pooled())
    with memory_for(100), pytest.raises(OutOfMemoryError, match=r"1 of 1 rows .*--device"):
        product.matvec(torch.ones(product.size, 1, dtype=torch.float64))


@pytest.mark.parametrize("case", [general.conv2d_strided, general.sequence, general.frozen])
def test_the_dual_with_memory_for_few_rows(case: Callable[[], Problem]) -> None:
    problem = case()
    rows = problem.examples * problem.outputs
    v = general.normal(problem.parameters, 2)
    expected = dual_rungs(problem)
    with memory_for(rows * max(b.size for b in problem.blocks) - 1) as refused:
        found = dual_rungs(problem)
    assert refused
    for mine, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.eigenvalues(), whole.eigenvalues(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mine.matvec(v), whole.matvec(v), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mine.solve(v, 0.1), whole.solve(v, 0.1), rtol=1e-9, atol=1e-12)
