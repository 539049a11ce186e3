"""What a forward pass shows of its layers, and how their outputs are perturbed."""

from __future__ import annotations

import pytest
import torch

from decomposition.inputs import apply_with, double, rows_in
from decomposition.layers import (
    LinearBlock,
    layers_of,
    patches,
    perturbed_forward,
    responses,
    traced_forward,
)
from decomposition.problem import Problem
from tests import cases


def _parts(problem: Problem):
    model, x = problem.double_model(), double(problem.train[0])
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return model, x, parameters, layers_of(model, problem.blocks)


def test_a_layer_maps_the_patches_of_its_input_to_its_responses(general: Problem) -> None:
    """[W | b] [a; 1] at every position of every call is the layer's output there."""
    model, x, parameters, layers = _parts(general)
    traced = traced_forward(model, layers, parameters, x)
    theta, n = general.theta(), rows_in(x)
    for block in general.blocks:
        if not isinstance(block, LinearBlock):
            continue
        layer = layers[block.name]
        w = block.to_matrix(theta[block.slice, None])[..., 0].unflatten(0, (block.groups, -1))
        frozen = getattr(layer, "bias", None) is not None and not block.bias
        for a, z in zip(traced.inputs[block.name], traced.responses[block.name], strict=True):
            of_groups = w.squeeze(0) if block.groups == 1 else w
            found = block.append_one(patches(layer, a, n)) @ of_groups.mT
            found = found + layer.bias if frozen else found
            torch.testing.assert_close(found, responses(layer, z, n), rtol=1e-12, atol=1e-12)


def test_looking_changes_nothing(general: Problem) -> None:
    model, x, parameters, layers = _parts(general)
    found = traced_forward(model, layers, parameters, x).outputs
    torch.testing.assert_close(found.detach(), apply_with(model, parameters, x), rtol=0, atol=0)


def test_what_is_seen_of_a_layer_outlasts_an_operation_in_its_place() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(inplace=True)).double()
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    (z,) = traced_forward(model, {"0": model[0]}, parameters, x).responses["0"]
    torch.testing.assert_close(z, x @ model[0].weight.T + model[0].bias)
    assert bool((z < 0).any())


def test_perturbing_a_layers_output_by_its_bias_step() -> None:
    """Adding δ to a layer's output is adding δ to its bias."""
    problem = cases.gelu()
    model, x, parameters, layers = _parts(problem)
    block = problem.blocks[1]
    assert isinstance(block, LinearBlock)
    step = torch.linspace(-1, 1, block.d_out, dtype=torch.float64)
    shift = {name: (torch.zeros((), dtype=torch.float64),) for name in layers}
    shift |= {block.name: (step.expand(len(x), block.d_out),)}
    perturbed, _ = perturbed_forward(model, layers, parameters, x, shift)
    key = f"{block.name}.bias"
    moved = apply_with(model, {**parameters, key: parameters[key] + step}, x)
    torch.testing.assert_close(perturbed, moved, rtol=1e-12, atol=1e-12)


def test_hooks_are_removed_when_the_forward_pass_fails() -> None:
    problem = cases.tanh()
    model, _, parameters, layers = _parts(problem)
    with pytest.raises(RuntimeError):
        traced_forward(model, layers, parameters, torch.zeros(2, 5).double())
    assert not any(module._forward_hooks for module in model.modules())
