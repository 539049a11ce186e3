"""Blocks: the flat parameter vector, and [W | b] and back."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parameters_to_vector

from decomposition.layers import ExactBlock, LinearBlock
from decomposition.problem import Problem
from tests import cases, general


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
    assert stop == len(theta) == problem.num_parameters


def test_blocks_tile_the_trainable_parameters(general: Problem) -> None:
    """In the order of named_parameters(), tied ones once, frozen ones not at all."""
    named = dict(general.model.named_parameters())
    assert general.trainable == tuple(name for name, p in named.items() if p.requires_grad)
    values = [named[name].flatten() for name in general.trainable]
    torch.testing.assert_close(general.theta(), torch.cat(values), rtol=0, atol=0)
    start = 0
    for block in general.blocks:
        assert (block.start, block.slice) == (start, slice(start, start + block.size))
        start += block.size
    assert start == general.num_parameters == len(general.theta())


def test_exact_blocks_name_their_parameters(general: Problem) -> None:
    for block in general.blocks:
        if isinstance(block, ExactBlock):
            own = [general.model.get_parameter(name).flatten() for name in block.parameters]
            torch.testing.assert_close(general.theta()[block.slice], torch.cat(own), rtol=0, atol=0)


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


def test_the_parameters_of_an_embedding_are_those_of_the_transpose() -> None:
    block = LinearBlock("token", 0, 4, 3, bias=False, transposed=True)
    v = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    matrix = block.to_matrix(v)
    assert torch.equal(matrix[..., 0], v[:, 0].view(4, 3).T)
    assert torch.equal(block.from_matrix(matrix), v)


@given(d_in=st.integers(1, 5), d_out=st.integers(1, 5), k=st.integers(1, 3))
def test_a_transposed_weight_is_followed_by_the_bias(d_in: int, d_out: int, k: int) -> None:
    block = LinearBlock("layer", 3, d_in, d_out, bias=True, transposed=True)
    v = torch.randn(block.size, k, generator=torch.Generator().manual_seed(0))
    weight = v[: d_in * d_out].view(d_in, d_out, k).transpose(0, 1)
    assert torch.equal(block.to_matrix(v), torch.cat([weight, v[d_in * d_out :, None]], 1))
    assert torch.equal(block.from_matrix(block.to_matrix(v)), v)


def test_names_follow_parameter_order_and_calls_follow_the_forward_pass() -> None:
    problem = cases.residual()
    assert [b.name for b in problem.blocks] == ["out", "first", "inner", "gate"]
    assert problem.layout.order == ("first", "inner", "gate", "out")
    assert general.called_twice().layout.order == ("inner", "inner", "out")


def test_a_bare_linear_layer_is_a_model() -> None:
    x, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 2
    bare = Problem(nn.Linear(3, 2), nn.CrossEntropyLoss(), (x, y), (x + 1, y))
    (block,) = bare.blocks
    assert (block.name, block.size, bare.num_parameters, bare.plain) == ("linear", 8, 8, True)


def test_a_child_may_have_the_name_of_the_model_itself() -> None:
    """Its own parameters come first, under a name that no child has."""
    problem = general.bare_parameters()
    exact, linear = problem.blocks
    assert isinstance(exact, ExactBlock)
    assert isinstance(linear, LinearBlock)
    assert (exact.name, exact.parameters) == ("model_", ("scale", "shift", "temperature"))
    assert linear.name == "model"
