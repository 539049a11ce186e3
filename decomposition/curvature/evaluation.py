"""A model as a function of its flat vector of trainable parameters, whatever its inputs.

Shapes: v (P,) is a direction in parameter space in the order of ``problem.trainable``, split into
the tangents of the parameters, each of its parameter's shape.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.curvature.convolutions import with_patches
from decomposition.curvature.preactivation import differentiable
from decomposition.device import chunk_bytes
from decomposition.errors import DecompositionError, ProblemError
from decomposition.inputs import Inputs, apply_with, parts_of, rows_in, take, to
from decomposition.losses import Loss
from decomposition.memory import shrinking
from decomposition.problem import Problem

Parameters = dict[str, Tensor]
Result = TypeVar("Result")

BATCH_NUMBERS = 2**22
"""Numbers that a batch's activations, with their tangents, may take: more leaves the cache."""
BATCH_PARAMETERS = 8
"""Or this many per parameter if that is more: a batch costs a few sweeps over the parameters."""
COLUMN_NUMBERS = 2**22
"""Numbers in the columns that are taken at once: larger models fill the processor with one."""
COLUMNS, COLUMNS_ON_CUDA = 16, 256
"""Most columns that are taken at once; few leave a CUDA device idle."""
COLUMN_COPIES = 4
"""Vectors (P,) at work for each of them: direction, image, and the parameters' tangents."""


class Evaluation:
    """f(x; θ) and the loss at a problem's present parameters, in one precision.

    Raises:
        DecompositionError: a precision other than float64 and float32.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float64) -> None:
        """Prepare a copy of the model in evaluation mode."""
        if dtype not in (torch.float64, torch.float32):
            raise DecompositionError(f"curvature products are float64 or float32, not {dtype}")
        self.dtype = dtype
        self.model: nn.Module = problem.double_model().to(dtype)
        few = to(take(problem.train[0], slice(0, 2)), dtype)
        if dtype == torch.float64:
            with torch.no_grad():
                with_patches(self.model, few)
        self.loss: Loss = problem.loss_function
        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self.every: Parameters = {name: value.detach() for name, value in state.items()}
        self.chosen: Parameters = {name: self.every[name] for name in problem.trainable}
        self.size = problem.num_parameters
        self.activations = activation_numbers(self.model, self.every, self.chosen, few)
        self._few = few
        self._device, self._bytes = problem.device, torch.finfo(dtype).bits // 8
        self._numbers, self._columns = 2**63, COLUMNS_ON_CUDA  # until memory has run out

    def restricted(self, part: slice) -> Evaluation:
        """The same function of the parameters ``part`` alone, the others being constants.

        Sweeps are then shorter: forward ones start, and reverse ones end, where the first of these
        parameters is used.

        Raises:
            DecompositionError: ``part`` cuts through a tensor, or is none of them.
        """
        names, start = [], 0
        for name, value in self.chosen.items():
            if part.start <= start and start + value.numel() <= part.stop:
                names.append(name)
            start += value.numel()
        other = copy.copy(self)
        other.chosen = {name: self.chosen[name] for name in names}
        other.size = sum(value.numel() for value in other.chosen.values())
        if not names or other.size != part.stop - part.start:
            raise DecompositionError(
                f"parameters {part.start} to {part.stop - 1} of {self.size} are no whole tensors"
            )
        other.activations = activation_numbers(self.model, self.every, other.chosen, self._few)
        return other

    def outputs(self, parameters: Mapping[str, Tensor], x: Inputs) -> Float[Tensor, "n C"]:
        """f(x) with these trainable parameters; the others stay."""
        return apply_with(self.model, {**self.every, **parameters}, x)

    def losses(self, parameters: Mapping[str, Tensor], x: Inputs, y: Tensor) -> Float[Tensor, " n"]:
        """ℓ_n."""
        return self.loss.per_example(self.outputs(parameters, x), y)

    def tangent(self, v: Float[Tensor, " P"]) -> Parameters:
        """A direction as one tensor per parameter."""
        pieces = v.split([value.numel() for value in self.chosen.values()])
        return {
            name: piece.view_as(value)
            for (name, value), piece in zip(self.chosen.items(), pieces, strict=True)
        }

    def flat(self, parts: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
        """One tensor per parameter as a direction."""
        return torch.cat([parts[name].flatten() for name in self.chosen])

    def over(
        self,
        data: tuple[Inputs, Tensor],
        columns: int,
        work: Callable[[Inputs, Tensor, slice], Result],
    ) -> Iterator[Result]:
        """``work(x, y, rows)`` of batches of examples in this precision, all of them in turn.

        A batch is few enough examples for ``columns`` tangents of each, and fewer if these do not
        fit: ``work`` must leave nothing half done.

        Raises:
            OutOfMemoryError: not even one example fits.
        """
        x, y = data
        one = self.activations * (1 + 3 * columns)

        def batch(rows: slice) -> Result:
            targets = y[rows].to(self.dtype) if y.is_floating_point() else y[rows]
            return work(to(take(x, rows), self.dtype), targets, rows)

        def shrunk(examples: int) -> None:
            self._numbers = min(self._numbers, examples * one)

        return shrinking(batch, rows_in(x), self.examples_at_once(columns), shrunk=shrunk)

    def examples_at_once(self, columns: int) -> int:
        """How many examples a batch has, as far as is known."""
        on_cpu = max(BATCH_NUMBERS, BATCH_PARAMETERS * self.size)
        numbers = chunk_bytes(self._device, self._bytes * on_cpu) // self._bytes
        return max(1, min(numbers, self._numbers) // (self.activations * (1 + 3 * columns)))

    def by_columns(self, count: int, work: Callable[[slice], Result]) -> Iterator[Result]:
        """``work`` of a few of ``count`` columns (P,) at a time, of fewer if they do not fit.

        Raises:
            OutOfMemoryError: not even one column and one example fit.
        """

        def shrunk(columns: int) -> None:
            self._columns = min(self._columns, columns)

        return shrinking(work, count, self.columns(count), shrunk=shrunk)

    def columns(self, count: int) -> int:
        """How many of ``count`` columns are taken at once, as far as is known."""
        most, numbers = COLUMNS, COLUMN_NUMBERS
        if self._device.type == "cuda":
            most = COLUMNS_ON_CUDA
            numbers = chunk_bytes(self._device, 0) // (COLUMN_COPIES * self._bytes)
        return max(1, min(count, most, self._columns, numbers // self.size))

    def guarded(self):
        """Failures of ``torch.func`` as UnsupportedModelError, inside this context."""
        return differentiable(self.model)


def activation_numbers(model: nn.Module, every: Parameters, chosen: Parameters, x: Inputs) -> int:
    """Numbers that autograd keeps for the backward pass of one example.

    Counted, not guessed: what two examples keep beyond what one keeps.

    Args:
        model: the model.
        every: all its parameters and buffers.
        chosen: those that are differentiated.
        x: two examples, or one if there are no more.
    """

    def kept(rows: int) -> int:
        storages: dict[int, int] = {}
        parameters = {p.untyped_storage().data_ptr() for p in every.values()}
        held = []  # else a freed storage's address would be met again

        def pack(t: Tensor) -> Tensor:
            if t.untyped_storage().data_ptr() not in parameters:
                held.append(t)
                storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        leaves = {name: v.detach().requires_grad_(name in chosen) for name, v in every.items()}
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            apply_with(model, leaves, take(x, slice(0, rows)))
        return sum(storages.values())

    numbers = kept(1) if rows_in(x) < 2 else kept(2) - kept(1)
    size = next(iter(every.values())).element_size()
    inputs = sum(part[0].numel() for part in parts_of(x).values())
    return max(1, inputs, numbers // size)


def check_columns(v: Tensor, size: int) -> None:
    """Raise ProblemError unless ``v`` holds columns (P, k)."""
    if v.ndim != 2 or len(v) != size:
        raise ProblemError(f"directions are columns ({size}, k), got {tuple(v.shape)}")
