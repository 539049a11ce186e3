"""Which way of running copies together is right for a module: each is tried before it is used.

The fastest way comes first. It is tried in float64 for a few steps on the rows that tell most:
outputs and gradients must be those of the copies one by one. Together those rows hold what values
can differ in: a branch of a model may hang on a token, on which positions are zero or masked, or on
a sign, and a few rows from the start of the data may hold none of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.inputs import (
    Inputs,
    about_transformers,
    apply_with,
    double,
    each,
    parts_of,
    rows_in,
    take,
)
from decomposition.retraining.stacks import (
    Stack,
    Way,
    all_linear,
    make_stack,
    trainable_parameters,
)

TRIAL_MODELS, TRIAL_ROWS, TRIAL_STEPS = 2, 6, 3
TRIAL_LENGTH = 0.1
TRIAL_TOLERANCE = 1e-9
TRIAL_DECAY = 0.5
TOKENS = 16
"""Rows that are chosen for whole numbers, rare ones first, at most."""
PATTERNS = 8
"""Rows that are chosen for what is zero or false in them, from the fullest to the emptiest."""
IN_PLACE = (
    "an in-place operation writes a value of each copy into a tensor that all share (one made in "
    "forward, or a buffer)"
)
UNROLLED = (
    " (decomposition.layers.with_linear_layers(model) is a copy of the model in which it runs step "
    "by step)"
)
CAUSES = (
    ("data-dependent control flow", "data-dependent control flow (an if or while on a tensor)"),
    (".item()", "a tensor is turned into a number (.item(), float(), int())"),
    ("inplace", IN_PLACE),
    ("in-place", IN_PLACE),
    ("output with shape", IN_PLACE),
    ("randomness", "random numbers are drawn in the forward pass"),
    ("dynamic shape", "the shape of a tensor depends on its values"),
    ("Batching rule not implemented", "an operation has no batched form"),
)
"""Parts of torch's messages, and what they mean."""


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
        f"run under torch.func.vmap over its parameters{about_transformers(model)}"
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


def telling_rows(x: Inputs, least: int) -> Int64[Tensor, " n"]:
    """``least`` rows from the start and further ones, for every part of the inputs:

    - whole numbers: a row for each value, as far as ``TOKENS`` rows hold them;
    - all: rows with different patterns of zeros, ``PATTERNS`` of them;
    - numbers: those with the smallest and the largest entry.

    The first rows are repeated where there are fewer than ``least``.
    """
    chosen: list[int] = []
    for part in parts_of(x).values():
        values = part.detach().flatten(1).cpu().numpy() if part.ndim > 1 else _column(part)
        if not values.size:
            continue
        if part.is_floating_point():
            chosen += [int(values.min(1).argmin()), int(values.max(1).argmax())]
        elif part.dtype != torch.bool:
            chosen += _covering(values)
        chosen += _patterns(values == 0)
    first = [row % rows_in(x) for row in range(least)]
    return torch.tensor([*first, *(row for row in dict.fromkeys(chosen) if row not in first)])


def _column(part: Tensor) -> np.ndarray:
    return part.detach()[:, None].cpu().numpy()


def _covering(values: np.ndarray) -> list[int]:
    """Rows that hold as many different values as they can, rare values first."""
    distinct, first, counts = np.unique(values, return_index=True, return_counts=True)
    chosen: list[int] = []
    seen: set = set()
    for place in np.argsort(counts, kind="stable"):
        if len(chosen) == TOKENS:
            break
        if distinct[place] not in seen:
            row = int(first[place]) // values.shape[1]
            chosen.append(row)
            seen.update(values[row].tolist())
    return chosen


def _patterns(zeros: Bool[np.ndarray, "N F"]) -> list[int]:
    """Rows of different patterns, evenly from those with the fewest zeros to those with most."""
    _, first = np.unique(np.packbits(zeros, axis=1), axis=0, return_index=True)
    first = first[np.argsort(zeros[first].sum(1), kind="stable")]
    picks = np.linspace(0, len(first) - 1, min(PATTERNS, len(first))).round().astype(int)
    return [int(row) for row in first[picks]]


@contextmanager
def where_it_fails(model: nn.Module) -> Iterator[None]:
    """Say what a forward pass does that ``vmap`` cannot follow, and in which module.

    Raises:
        UnsupportedModelError: in place of any other error in the block.
    """
    names = {id(module): name for name, module in model.named_modules()}
    entered: list[nn.Module] = []
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(lambda m, _: entered.append(m)))
        handles.append(module.register_forward_hook(lambda *_: (entered.pop(), None)[1]))
    try:
        yield
    except Exception as error:
        where = way_out = ""
        if entered:
            name, kind = names[id(entered[-1])], type(entered[-1]).__name__
            where = f"in module {name} ({kind}) " if name else "in its forward pass "
            way_out = UNROLLED if isinstance(entered[-1], nn.RNNBase) else ""
        raise UnsupportedModelError(f"{where}{_cause(error)}{way_out}") from error
    finally:
        for handle in handles:
            handle.remove()


def _cause(error: Exception) -> str:
    text = str(error)
    for part, meaning in CAUSES:
        if part in text:
            return meaning
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"
