"""How copies of a model run together: the fastest way that reproduces them one by one.

In this order: the module as it is on stacked inputs (``direct``), its linear layers inside
``vmap`` (``vmapped``), the whole module under ``vmap`` (``function``). Each is tried in float64 for
a few steps on the rows that tell most: outputs and gradients must be those of the copies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, apply_with, double, each, parts_of, take
from decomposition.retraining.failure import where_it_fails
from decomposition.retraining.stacked import StackedModel, all_linear
from decomposition.retraining.stacked_function import StackedFunction
from decomposition.retraining.telling_rows import telling_rows
from decomposition.retraining.trainable import trainable_parameters

Way = Literal["direct", "vmapped", "function"]
Stack = StackedModel | StackedFunction

TRIAL_MODELS, TRIAL_ROWS, TRIAL_STEPS = 2, 6, 3
TRIAL_LENGTH = 0.1
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
    """The first way that reproduces the module copy by copy on the rows that tell most.

    Raises:
        UnsupportedModelError: none does; the message names the module and what it does.
    """
    trial = _Trial.of(model, take(rows, telling_rows(rows, TRIAL_ROWS)))
    reason = None
    for way in _ways(model):
        reason = trial.difference(model, way)
        if reason is None:
            return way
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot be trained many at once: {reason}; its forward pass must "
        "run under torch.func.vmap over its parameters"
    )


def difference(model: nn.Module, way: Way, rows: Inputs) -> str | None:
    """In what a stack differs on ``rows`` from its copies one by one, in float64; None: nothing."""
    return _Trial.of(model, rows).difference(model, way)


def _ways(model: nn.Module) -> Iterator[Way]:
    if all_linear(model):
        yield "direct"
        yield "vmapped"
    yield "function"


@dataclass(frozen=True, eq=False)
class _Step:
    """What two copies with these parameters give, one by one."""

    states: dict[str, Tensor]
    outputs: Tensor
    gradients: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Trial:
    """Two copies with different parameters, trained for a few steps on the same rows.

    What falls is a weighted sum of their outputs, so that no loss hides a difference; steps have
    a fixed length, so that none is lost in rounding.
    """

    x: Inputs
    weights: Tensor
    """∂/∂outputs of the number whose gradient is compared."""
    steps: tuple[_Step, ...]

    @staticmethod
    def of(model: nn.Module, rows: Inputs) -> _Trial:
        reference = copy.deepcopy(model).double().eval()
        scale = torch.linspace(0.8, 1.2, TRIAL_MODELS, dtype=torch.float64)
        states = {
            name: torch.stack([factor * value.detach() for factor in scale])
            for name, value in trainable_parameters(reference).items()
        }
        x = each(double(rows), lambda part: torch.stack([part, part.flip(0)]))
        given = each(x, torch.clone)
        steps: list[_Step] = []
        weights = torch.ones(())
        for _ in range(TRIAL_STEPS):
            leaves = {name: value.clone().requires_grad_() for name, value in states.items()}
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
            found = torch.autograd.grad(
                outputs, list(leaves.values()), weights, allow_unused=True, materialize_grads=True
            )
            gradients = dict(zip(leaves, found, strict=True))
            steps.append(_Step(states, outputs.detach(), gradients))
            states = {
                name: value - TRIAL_LENGTH * _direction(gradients[name])
                for name, value in states.items()
            }
        return _Trial(x, weights, tuple(steps))

    def difference(self, model: nn.Module, way: Way) -> str | None:
        """The first step and the parameter, or that outputs differ, or what cannot run."""
        stack = make_stack(model, TRIAL_MODELS, torch.float64, way, TRIAL_DECAY)
        try:
            with where_it_fails(stack.module):
                reasons = (self._differs(stack, step) for step in self.steps)
                return next((reason for reason in reasons if reason), None)
        except Exception as error:
            return str(error)

    def _differs(self, stack: Stack, step: _Step) -> str | None:
        """Outputs, and ½·1 + gradient in ``sums``: each layer's gradient comes in once."""
        stack.load(0, step.states)
        with torch.enable_grad():
            outputs = stack(each(self.x, torch.clone))
        if outputs.shape != step.outputs.shape or not _close(outputs.detach(), step.outputs):
            return "its outputs are not those of the copies one by one"
        stack.sums.fill_(1.0)
        stack.backward(outputs, self.weights)
        found = dict(stack.gradients())
        for name in reversed(step.gradients):  # the one next to the outputs is where it begins
            if not _close(found[name], TRIAL_DECAY + step.gradients[name]):
                module, _, key = name.rpartition(".")
                kind = type(stack.module.get_submodule(module)).__name__
                return (
                    f"in module {module or 'model'} ({kind}) the gradient of {key} is not that of "
                    "the copies one by one"
                )
        return None


def _direction(gradient: Tensor) -> Tensor:
    """Of each copy, of length one at most."""
    length = gradient.flatten(1).norm(dim=1) if gradient.ndim > 1 else gradient.abs()
    return gradient / (length + 1).view(-1, *(1,) * (gradient.ndim - 1))


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
