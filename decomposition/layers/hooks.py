"""Seeing the inputs of layers, and perturbing their outputs, in a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

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


def output_shapes(
    model: nn.Module, layers: Mapping[str, nn.Module], parameters: Mapping[str, Tensor], x: Inputs
) -> dict[str, tuple[torch.Size, ...]]:
    """Shapes of every layer's outputs in one forward pass, call by call."""
    found: dict[str, list[torch.Size]] = {name: [] for name in layers}
    with output_hooks(layers, lambda name, a, z: found[name].append(z.shape)), torch.no_grad():
        apply_with(model, parameters, x)
    return {name: tuple(calls) for name, calls in found.items()}
