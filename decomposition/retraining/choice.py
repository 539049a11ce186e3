"""How copies of a model run together: the fastest way that reproduces them one by one.

In this order: the module as it is on stacked inputs (``direct``), its linear layers inside
``vmap`` (``vmapped``), the whole module under ``vmap`` (``function``). Each is tried on a few rows
in float64: outputs and gradients must be those of the copies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, apply_with, double, each, parts_of, rows_in, take
from decomposition.retraining.failure import where_it_fails
from decomposition.retraining.stacked import StackedModel, all_linear
from decomposition.retraining.stacked_function import StackedFunction
from decomposition.retraining.trainable import trainable_parameters

Way = Literal["direct", "vmapped", "function"]
Stack = StackedModel | StackedFunction

TRIAL_MODELS, TRIAL_ROWS = 2, 3
TRIAL_TOLERANCE = 1e-9
TRIAL_DECAY = 0.5


def make_stack(
    model: nn.Module, models: int, dtype: torch.dtype, way: Way, decay: float = 0.0
) -> Stack:
    """An empty stack of ``models`` copies."""
    if way == "function":
        return StackedFunction(model, models, dtype, decay)
    return StackedModel(model, models, dtype, way == "direct", decay)


def choose_way(model: nn.Module, rows: Inputs) -> Way:
    """The first way that reproduces the module copy by copy on a few of ``rows``.

    Raises:
        UnsupportedModelError: none does; the message names the module and what it does.
    """
    trial = _Trial.of(model, rows)
    reason = ""
    for way in _ways(model):
        stack = make_stack(model, TRIAL_MODELS, torch.float64, way, TRIAL_DECAY)
        try:
            with where_it_fails(stack.module):
                same = trial.reproduced_by(stack)
        except Exception as error:
            reason = str(error)
            continue
        if same:
            return way
        reason = "its outputs or gradients are not those of the copies one by one"
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot be trained many at once: {reason}; its forward pass must "
        "run under torch.func.vmap over its parameters"
    )


def _ways(model: nn.Module) -> Iterator[Way]:
    if all_linear(model):
        yield "direct"
        yield "vmapped"
    yield "function"


@dataclass(frozen=True, eq=False)
class _Trial:
    """Two copies with different parameters, and their outputs and gradients on few rows."""

    states: dict[str, Tensor]
    x: Inputs
    outputs: Tensor
    weights: Tensor
    """∂/∂outputs of the number whose gradient is compared."""
    gradients: dict[str, Tensor]

    @staticmethod
    def of(model: nn.Module, rows: Inputs) -> _Trial:
        reference = copy.deepcopy(model).double().eval()
        scale = torch.linspace(0.8, 1.2, TRIAL_MODELS, dtype=torch.float64)
        states = {
            name: torch.stack([factor * value.detach() for factor in scale])
            for name, value in trainable_parameters(reference).items()
        }
        picks = torch.arange(TRIAL_MODELS * TRIAL_ROWS) % rows_in(rows)
        x = each(double(take(rows, picks)), lambda part: part.unflatten(0, (TRIAL_MODELS, -1)))
        leaves = {name: value.clone().requires_grad_() for name, value in states.items()}
        given = each(x, torch.clone)
        with torch.enable_grad():
            outputs = torch.stack(
                [
                    apply_with(
                        reference,
                        {name: leaf[j] for name, leaf in leaves.items()},
                        each(given, lambda part, j=j: part[j]),
                    )
                    for j in range(TRIAL_MODELS)
                ]
            )
        _check_unchanged(model, x, given)
        weights = torch.linspace(1.0, 2.0, outputs.numel(), dtype=torch.float64)
        weights = weights.to(outputs.device).view_as(outputs)
        gradients = torch.autograd.grad(
            outputs, list(leaves.values()), weights, allow_unused=True, materialize_grads=True
        )
        return _Trial(
            states, x, outputs.detach(), weights, dict(zip(leaves, gradients, strict=True))
        )

    def reproduced_by(self, stack: Stack) -> bool:
        """Outputs, and ½·1 + gradient in ``sums``: each layer's gradient comes in once."""
        stack.load(0, self.states)
        with torch.enable_grad():
            outputs = stack(each(self.x, torch.clone))
        if outputs.shape != self.outputs.shape or not _close(outputs.detach(), self.outputs):
            return False
        stack.sums.fill_(1.0)
        stack.backward(outputs, self.weights)
        found = dict(stack.gradients())
        return all(
            _close(found[name], TRIAL_DECAY + expected) for name, expected in self.gradients.items()
        )


def _check_unchanged(model: nn.Module, x: Inputs, after: Inputs) -> None:
    for (name, part), now in zip(parts_of(x).items(), parts_of(after).values(), strict=True):
        if not torch.equal(part, now):
            raise UnsupportedModelError(
                f"{type(model).__name__} changes its input{name and f' {name}'} in place: the "
                "examples would not be the same at the next pass; clone it first, or set "
                "inplace=False in the first layer"
            )


def _close(found: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max() + 1) if expected.numel() else 1.0
    return torch.allclose(found, expected, rtol=0, atol=TRIAL_TOLERANCE * scale)
