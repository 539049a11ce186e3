"""Blocks: the flat parameter vector, [W | b] and back, and what a forward pass sees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parameters_to_vector

from decomposition.layers import LinearBlock, call_order, linear_blocks, perturbed_forward
from decomposition.problem import Problem
from tests import cases


def test_blocks_tile_the_flat_parameter_vector(problem: Problem) -> None:
    theta = parameters_to_vector(problem.model.parameters())
    stop = 0
    for block in problem.blocks:
        layer = problem.model.get_submodule(block.name)
        assert isinstance(layer, nn.Linear)
        assert block.start == stop
        own = [layer.weight.flatten()] + ([layer.bias] if layer.bias is not None else [])
        torch.testing.assert_close(theta[block.slice], torch.cat(own), rtol=0, atol=0)
        stop = block.start + block.size
    assert stop == len(theta) == problem.parameters


@settings(max_examples=30, deadline=None)
@given(d_in=st.integers(1, 5), d_out=st.integers(1, 5), bias=st.booleans(), k=st.integers(1, 3))
def test_matrix_form_and_back(d_in: int, d_out: int, bias: bool, k: int) -> None:
    block = LinearBlock("layer", 3, d_in, d_out, bias)
    v = torch.randn(block.size, k, generator=torch.Generator().manual_seed(0))
    matrix = block.to_matrix(v)
    assert matrix.shape == (d_out, block.width, k)
    assert bool((block.from_matrix(matrix) == v).all())
    if bias:
        assert bool((matrix[:, -1] == v[d_out * d_in :]).all())


def test_a_layer_maps_its_input_with_one_appended(problem: Problem) -> None:
    """[W | b] [a; 1] is the layer's output."""
    model, x = problem.double_model(), problem.train[0].double()
    theta = parameters_to_vector(model.parameters()).detach()
    zero = {b.name: torch.zeros(len(x), b.d_out, dtype=torch.float64) for b in problem.blocks}
    _, inputs = perturbed_forward(model, dict(model.named_parameters()), x, zero)
    for block in problem.blocks:
        w = block.to_matrix(theta[block.slice, None])[..., 0]
        layer = model.get_submodule(block.name)
        a = inputs[block.name]
        torch.testing.assert_close(block.append_one(a) @ w.T, layer(a), rtol=1e-12, atol=1e-12)


def test_names_follow_parameter_order_and_calls_follow_the_forward_pass() -> None:
    problem = cases.residual()
    assert [b.name for b in problem.blocks] == ["out", "first", "inner", "gate"]
    order = call_order(problem.double_model(), problem.train[0])
    assert order == ("first", "inner", "gate", "out")


def test_a_bare_linear_layer_is_a_model() -> None:
    (block,) = linear_blocks(nn.Linear(3, 2))
    assert (block.name, block.size) == ("linear", 8)
    x, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 2
    bare = Problem(nn.Linear(3, 2), nn.CrossEntropyLoss(), (x, y), (x + 1, y))
    assert bare.parameters == 8


def test_perturbing_a_layers_output_by_its_bias_step() -> None:
    """Adding δ to a layer's output is adding δ to its bias."""
    problem = cases.gelu()
    model, x = problem.double_model(), problem.train[0]
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    block = problem.blocks[1]
    step = torch.linspace(-1, 1, block.d_out, dtype=torch.float64)
    shift = {
        b.name: (step if b == block else torch.zeros(b.d_out).double()).expand(len(x), b.d_out)
        for b in problem.blocks
    }
    perturbed, _ = perturbed_forward(model, parameters, x, shift)
    key = f"{block.name}.bias"
    moved = torch.func.functional_call(model, {**parameters, key: parameters[key] + step}, (x,))
    torch.testing.assert_close(perturbed, moved, rtol=1e-12, atol=1e-12)


def test_hooks_are_removed_when_the_forward_pass_fails() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(RuntimeError):
        call_order(model, torch.zeros(2, 5))
    assert not model[0]._forward_hooks
