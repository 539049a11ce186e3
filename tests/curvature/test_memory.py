"""What fits into little memory is what fits into much: fewer examples and columns at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.estimate import probes
from decomposition.curvature.graphs import Graphs
from decomposition.curvature.jacobian import SweptRows
from decomposition.curvature.krylov import quadratures
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import Product, ggn_product, hessian_product
from decomposition.memory import OutOfMemoryError
from decomposition.problem import Problem
from decomposition.scores.gradients import StreamedGradients
from tests import cases, general
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
    return SweptRows(Graphs(problem))


QUANTITIES: dict[str, Callable[[Problem], tuple[Callable[[Tensor], Tensor], int]]] = {
    "hessian": lambda p: (hessian_product(p).matvec, p.num_parameters),
    "ggn": lambda p: (ggn_product(p).matvec, p.num_parameters),
    "single precision": lambda p: (ggn_product(p, torch.float32).matvec, p.num_parameters),
    "rows": lambda p: (swept(p).forward, p.num_parameters),
    "transposed rows": lambda p: (swept(p).transposed, p.num_examples * p.num_outputs),
    "derivatives": lambda p: (StreamedGradients(p)._by_sweeps, p.num_parameters),
}


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_passes_with_memory_for_two_examples(quantity: str) -> None:
    work, size = QUANTITIES[quantity](pooled())
    v = columns(size)
    whole = work(v)
    with memory_for(700) as refused:
        found = work(v)
        failures = len(refused)
        work(v)
    assert failures >= 2  # examples were halved twice, and columns went one by one
    assert len(refused) == failures  # and stay so the next time
    rounding = 1e-6 if quantity == "single precision" else 1e-14
    torch.testing.assert_close(found, whole, rtol=0, atol=rounding * float(whole.abs().max()))


def test_no_memory_for_one_example_is_said_with_the_way_out() -> None:
    product = hessian_product(pooled())
    with memory_for(100), pytest.raises(OutOfMemoryError, match=r"1 of 8 rows .*--device"):
        product.matvec(torch.ones(product.size, 1, dtype=torch.float64))


@pytest.mark.parametrize("case", [general.conv2d_strided, general.sequence, general.frozen])
def test_the_dual_with_memory_for_few_rows(case: Callable[[], Problem]) -> None:
    problem = case()
    rows = problem.num_examples * problem.num_outputs
    v = general.normal(problem.num_parameters, 2)
    expected = dual_rungs(problem)
    with memory_for(rows * max(b.size for b in problem.blocks) - 1) as refused:
        found = dual_rungs(problem)
    assert refused
    for mine, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.eigenvalues(), whole.eigenvalues(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mine.matvec(v), whole.matvec(v), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mine.solve(v, 0.1), whole.solve(v, 0.1), rtol=1e-9, atol=1e-12)


class Narrow:
    """A product that has memory for a few columns alone."""

    def __init__(self, product: Product, most: int) -> None:
        self.size, self.notes, self.device = product.size, product.notes, product.device
        self.product, self.most = product, most

    def matvec(self, v: Tensor) -> Tensor:
        if v.shape[1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.product.matvec(v)


@pytest.mark.parametrize("policy", ["signed", "absolute"])
def test_solves_with_memory_for_few_columns(policy: str) -> None:
    product = hessian_product(pooled())
    v = columns(product.size)
    rung, narrow = (
        MatrixFreeCurvature(one, krylov_steps=product.size, change=1e-9)
        for one in (product, Narrow(product, 2))
    )
    torch.testing.assert_close(
        narrow.solve(v, 0.3, policy), rung.solve(v, 0.3, policy), rtol=1e-5, atol=1e-5
    )
    assert [solve.columns for solve in rung.record] == [12]
    assert [solve.columns for solve in narrow.record] == [1] * 12  # 12, 6, 3 failed


def test_quadrature_with_memory_for_few_spaces() -> None:
    product = ggn_product(pooled())
    start = probes(product.size, 8, 0) / product.size**0.5
    (whole,) = quadratures(product.matvec, start, 10)
    with memory_for(3 * 10 * product.size) as refused:
        (found,) = quadratures(product.matvec, start, 10)
    assert 8 * 10 * product.size in refused
    torch.testing.assert_close(found.values, whole.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.weights, whole.weights, rtol=0, atol=1e-10)


@pytest.mark.parametrize("numbers", [200, 100])
def test_an_operator_without_memory_for_its_terms(numbers: int) -> None:
    problem = cases.tanh()
    v = general.normal(problem.num_parameters, 1)
    whole = ggn_product(problem).matvec(v)
    with memory_for(numbers) as refused:
        found = ggn_product(problem).matvec(v)
    assert refused
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-14)


def test_scores_with_memory_for_few_queries() -> None:
    problem = pooled()
    product = ggn_product(problem)
    rung, narrow = (
        MatrixFreeCurvature(one, definite=True, tolerance=1e-12)
        for one in (product, Narrow(product, 1))
    )
    whole = StreamedGradients(problem).scores(rung, 0.3)
    streamed = StreamedGradients(problem)
    with memory_for(1000) as refused:  # one query's patches
        found = streamed.scores(narrow, 0.3)
    assert refused
    torch.testing.assert_close(found, whole, rtol=1e-8, atol=1e-10)
