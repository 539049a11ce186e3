"""Out of memory becomes a smaller chunk, and the same result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition import Recipe
from decomposition.curvature.assembly import assemble_ggn, assemble_hessian
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.evaluation import mean_loss
from decomposition.memory import OutOfMemoryError, shrinking
from decomposition.problem import Problem
from decomposition.retraining.bank import retrain_bank
from decomposition.retraining.plan import BankPlan
from tests import cases, general


class Small:
    """Memory for ``most`` rows."""

    def __init__(self, most: int, error: BaseException) -> None:
        self.most, self.error = most, error
        self.asked: list[int] = []

    def squares(self, rows: slice) -> Tensor:
        self.asked.append(rows.stop - rows.start)
        if self.asked[-1] > self.most:
            raise self.error
        return torch.arange(rows.start, rows.stop).square()


FAILURES = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    "CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
    "CUDA's driver": RuntimeError("CUDA error: out of memory"),
    "TorchScript": RuntimeError("in the interpreter.\nRuntimeError: CUDA out of memory. Tried"),
    "NumPy": MemoryError("Unable to allocate 2 GiB"),
    "a part of it": OutOfMemoryError("out of memory with 1 of 3 rows at a time"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(("rows", "chunk", "most"), [(100, 64, 9), (7, 100, 1), (5, 5, 5)])
def test_out_of_memory_becomes_a_smaller_chunk(
    failure: str, rows: int, chunk: int, most: int
) -> None:
    memory = Small(most, FAILURES[failure])
    found = torch.cat(list(shrinking(memory.squares, rows, chunk)))
    torch.testing.assert_close(found, torch.arange(rows).square())
    assert memory.asked[0] == min(rows, chunk)
    fitting = [size for size in memory.asked if size <= most]
    assert max(fitting) > most / 2  # no smaller than it must be
    assert len(memory.asked) - len(fitting) <= np.log2(min(rows, chunk)) + 1  # and it stays so


def test_no_memory_for_one_row_is_said_with_the_way_out() -> None:
    memory = Small(3, FAILURES["CUDA"])
    with pytest.raises(OutOfMemoryError, match=r"with 4 of 100 rows at a time .*--device"):
        list(shrinking(memory.squares, 100, 64, least=4))


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        list(shrinking(Small(3, RuntimeError("shapes")).squares, 100, 64))


class Hungry(nn.Module):
    """A model that has memory for a few examples alone."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.model(x)


@pytest.mark.parametrize("case", ["plain", "convolution"])
def test_matrices_and_gradients_of_a_model_with_memory_for_few_examples(case: str) -> None:
    problem = cases.tanh() if case == "plain" else general.frames()
    hungry = replace(problem, model=Hungry(problem.model, 8))
    assert hungry.plain == problem.plain
    for quantity in (assemble_hessian, assemble_ggn, gradients, lambda p: mean_loss(p, "train")):
        torch.testing.assert_close(quantity(hungry), quantity(problem), rtol=1e-12, atol=1e-14)


def test_a_stack_that_does_not_fit_is_trained_in_parts() -> None:
    recipe = Recipe(lr=0.1, epochs=2, batch_size=4, dtype="float64")
    problem = replace(cases.tanh(), recipe=recipe)
    hungry = replace(problem, model=Hungry(problem.model, 8))
    plan = BankPlan(masks=20, repeats=1, second_order_masks=0)
    few, many = (retrain_bank(p.trained(), plan, progress=False) for p in (hungry, problem))
    np.testing.assert_array_equal(few.outputs, many.outputs)


class Tight(Hungry):
    """A model that has memory for a few examples of all its copies together."""

    def __init__(self, problem: Problem, most: int) -> None:
        super().__init__(problem.model, most)
        assert isinstance(problem.query[0], Tensor)
        self.numbers = problem.query[0][0].numel()

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() // self.numbers > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.model(x)


RECIPES = {
    "momentum": Recipe(lr=0.1, momentum=0.9, epochs=3, batch_size=11, dtype="float64"),
    "adam": Recipe("adam", lr=0.01, epochs=3, batch_size=11, dtype="float64"),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("case", [cases.tanh, general.cnn])
def test_a_batch_that_does_not_fit_is_summed_from_parts(
    case: Callable[[], Problem], recipe: str
) -> None:
    problem = replace(case(), recipe=RECIPES[recipe])
    tight = replace(problem, model=Tight(problem, 8))
    few, many = tight.trained(), problem.trained()
    torch.testing.assert_close(few.theta(), many.theta(), rtol=0, atol=1e-12)
    plan = BankPlan(masks=3, repeats=1, second_order_masks=0)
    banks = [retrain_bank(p, plan, progress=False) for p in (few, many)]
    found, expected = (bank.measurements(problem) for bank in banks)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def gradients(problem: Problem) -> Tensor:
    return per_example_gradients(problem, *problem.train)
