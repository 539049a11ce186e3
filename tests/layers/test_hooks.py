"""What a forward pass shows of its layers, and how their outputs are perturbed."""

from __future__ import annotations

import pytest
import torch

from decomposition.inputs import apply_with, double, rows_in
from decomposition.layers import (
    LinearBlock,
    layers_of,
    output_hooks,
    output_shapes,
    patches,
    perturbed_forward,
    responses,
)
from decomposition.problem import Problem
from tests import cases


def _parts(problem: Problem):
    model, x = problem.double_model(), double(problem.train[0])
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    layers = layers_of(model, problem.blocks)
    shapes = output_shapes(model, layers, parameters, x)
    zeros = {
        name: tuple(torch.zeros(shape, dtype=torch.float64) for shape in calls)
        for name, calls in shapes.items()
    }
    return model, x, parameters, layers, zeros


def test_a_layer_maps_the_patches_of_its_input_to_its_responses(general: Problem) -> None:
    """[W | b] [a; 1] at every position of every call is the layer's output there."""
    model, x, parameters, layers, zeros = _parts(general)
    outputs: dict[str, list] = {name: [] for name in layers}
    with output_hooks(layers, lambda name, a, z: outputs[name].append(z)):
        _, inputs = perturbed_forward(model, layers, parameters, x, zeros)
    theta, n = general.theta(), rows_in(x)
    for block in general.blocks:
        if not isinstance(block, LinearBlock):
            continue
        layer = layers[block.name]
        w = block.to_matrix(theta[block.slice, None])[..., 0].unflatten(0, (block.groups, -1))
        frozen = getattr(layer, "bias", None) is not None and not block.bias
        for a, z in zip(inputs[block.name], outputs[block.name], strict=True):
            of_groups = w.squeeze(0) if block.groups == 1 else w
            found = block.append_one(patches(layer, a, n)) @ of_groups.mT
            found = found + layer.bias if frozen else found
            torch.testing.assert_close(found, responses(layer, z, n), rtol=1e-12, atol=1e-12)


def test_no_perturbation_changes_nothing(general: Problem) -> None:
    model, x, parameters, layers, zeros = _parts(general)
    found, _ = perturbed_forward(model, layers, parameters, x, zeros)
    torch.testing.assert_close(found, apply_with(model, parameters, x), rtol=0, atol=0)


def test_perturbing_a_layers_output_by_its_bias_step() -> None:
    """Adding δ to a layer's output is adding δ to its bias."""
    problem = cases.gelu()
    model, x, parameters, layers, zeros = _parts(problem)
    block = problem.blocks[1]
    assert isinstance(block, LinearBlock)
    step = torch.linspace(-1, 1, block.d_out, dtype=torch.float64)
    shift = zeros | {block.name: (step.expand(len(x), block.d_out),)}
    perturbed, _ = perturbed_forward(model, layers, parameters, x, shift)
    key = f"{block.name}.bias"
    moved = apply_with(model, {**parameters, key: parameters[key] + step}, x)
    torch.testing.assert_close(perturbed, moved, rtol=1e-12, atol=1e-12)


def test_hooks_are_removed_when_the_forward_pass_fails() -> None:
    problem = cases.tanh()
    model, _, parameters, layers, zeros = _parts(problem)
    with pytest.raises(RuntimeError):
        perturbed_forward(model, layers, parameters, torch.zeros(2, 5).double(), zeros)
    assert not any(module._forward_hooks for module in model.modules())
