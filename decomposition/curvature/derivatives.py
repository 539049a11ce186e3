"""Are the first and second derivatives of every example's loss finite? One sweep of each tells."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from decomposition.curvature.passes import differentiable
from decomposition.curvature.terms import as_double
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import apply_with, double, rows_in, take
from decomposition.memory import shrinking
from decomposition.problem import Problem, Split

ROWS = 256
Order = Literal[1, 2]
NAMES: dict[Order, str] = {1: "gradient", 2: "second derivative"}


def check_gradients(problem: Problem) -> None:
    """Nothing, if the gradient of every example's loss is finite at the present parameters.

    The sum over examples is finite only if each of them is.

    Raises:
        UnsupportedModelError: one is not; the message names its row and parameter.
    """
    for split in ("train", "query"):
        _check(problem, split, 1)


def check_second_derivatives(problem: Problem) -> None:
    """The same of training examples' second derivatives, along one direction that none escapes."""
    _check(problem, "train", 2)


def _check(problem: Problem, split: Split, order: Order) -> None:
    found, rows = _Derivatives(problem), rows_in(getattr(problem, split)[0])
    parts = shrinking(lambda some: found(split, some, order), rows, ROWS)
    if any(name is not None for name in parts):
        for row in range(rows):
            name = found(split, slice(row, row + 1), order)
            if name is not None:
                raise UnsupportedModelError(_message(split, row, order, name))


def _message(split: str, row: int, order: Order, name: str) -> str:
    return (
        f"the {NAMES[order]} of the loss of {split} row {row} in parameter {name} is not finite, "
        "though the loss is: the forward pass has a point without derivative there (the root or "
        "norm of 0, a division by 0, a logarithm); keep away from it, as in torch.sqrt(x + 1e-6), "
        "or leave the example out"
    )


class _Derivatives:
    """(split, rows, order) → the first parameter in which derivatives are not finite, or None."""

    def __init__(self, problem: Problem) -> None:
        model = problem.double_model()
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._problem, self._model = problem, model
        self._every = {name: value.detach() for name, value in state.items()}
        self._chosen = {name: self._every[name] for name in problem.trainable}
        generator = torch.Generator().manual_seed(0)
        self._direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value)
            for name, value in self._chosen.items()
        }

    def __call__(self, split: Split, rows: slice, order: Order) -> str | None:
        x, y = self._problem.rows(split)
        x, y = double(take(x, rows)), as_double(y[rows])

        def total(parameters: dict[str, Tensor]) -> Tensor:
            outputs = apply_with(self._model, {**self._every, **parameters}, x)
            return self._problem.loss_function.per_example(outputs, y).sum()

        with differentiable(self._model):
            if order == 1:
                found = torch.func.grad(total)(self._chosen)
            else:
                _, pull = torch.func.vjp(torch.func.grad(total), self._chosen)  # pyright: ignore[reportAssignmentType]
                found = pull(self._direction)[0]
        bad = (name for name, value in found.items() if not torch.isfinite(value).all())
        return next(bad, None)
