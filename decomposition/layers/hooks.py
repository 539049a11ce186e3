"""Seeing the inputs and outputs of layers in a forward pass, and perturbing the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from decomposition.inputs import Inputs, apply_with


@contextmanager
def output_hooks(
    layers: Mapping[str, nn.Module], hook: Callable[[str, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call ``hook(name, input, output)`` at every call of a layer; it may replace the output."""
    handles = []
    for name, module in layers.items():

        def forward_hook(
            _module: nn.Module,
            inputs: tuple[Tensor, ...],
            named: dict[str, Tensor],
            output: Tensor,
            name: str = name,
        ) -> Tensor | None:
            return hook(name, (*inputs, *named.values())[0], output)

        handles.append(module.register_forward_hook(forward_hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Perturbation = Mapping[str, tuple[Tensor, ...]]
"""Layer → what is added to its output, call by call."""


def perturbed_forward(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    parameters: Mapping[str, Tensor],
    x: Inputs,
    perturbation: Perturbation,
) -> tuple[Tensor, dict[str, tuple[Tensor, ...]]]:
    """Outputs (n, C) and every layer's inputs, call by call, its outputs perturbed."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str, a: Tensor, z: Tensor) -> Tensor:
        call = len(seen[name])
        seen[name].append(a.clone())  # a later in-place operation must not change what we saw
        return z + perturbation[name][call]

    with output_hooks(layers, hook):
        outputs = apply_with(model, parameters, x)
    return outputs, {name: tuple(calls) for name, calls in seen.items()}


@dataclass(frozen=True)
class Traced:
    """A forward pass with its graph."""

    outputs: Tensor
    """(n, C)."""
    inputs: dict[str, tuple[Tensor, ...]]
    """What went into every layer, call by call."""
    responses: dict[str, tuple[Tensor, ...]]
    """What came out of it: the outputs can be differentiated along it, whatever is trainable."""


def traced_forward(
    model: nn.Module, layers: Mapping[str, nn.Module], parameters: Mapping[str, Tensor], x: Inputs
) -> Traced:
    """Outputs, and every layer's inputs and outputs."""
    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    responses: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str, a: Tensor, z: Tensor) -> Tensor:
        z = z if z.requires_grad else z.detach().requires_grad_()
        inputs[name].append(a.detach().clone())
        responses[name].append(z)
        return z.clone()  # a later in-place operation must change nothing that we saw

    with output_hooks(layers, hook), torch.enable_grad():
        outputs = apply_with(model, parameters, x)
    return Traced(
        outputs,
        {name: tuple(calls) for name, calls in inputs.items()},
        {name: tuple(calls) for name, calls in responses.items()},
    )
