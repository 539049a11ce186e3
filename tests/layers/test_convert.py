"""Modules of one's own that are linear maps under another name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decomposition import Settings, run
from decomposition.chain import build_chain
from decomposition.errors import UnsupportedModelError
from decomposition.layers import ExactBlock, LinearBlock, find, with_linear_layers
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied
from tests.oracles import autograd
from tests.retraining.plain import with_recipe

SMALL = Settings(masks=8, second_order_masks=2, resamples=100, matrix_norms=False, lattice=False)


class Conv1D(nn.Module):
    """The map of GPT-2, y = x W + b, in a module of the user's own."""

    def __init__(self, d_out: int, d_in: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(d_in, d_out))
        self.bias = nn.Parameter(0.1 * torch.randn(d_out))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return rows.view(*x.shape[:-1], -1)


class Own(nn.Module):
    """A matrix, and a vector if it has a length, with a forward pass given as a function."""

    def __init__(self, function: Callable, shape: tuple[int, int], length: int | None) -> None:
        super().__init__()
        self.function, self.kernel = function, nn.Parameter(torch.randn(*shape))
        self.shift = None if length is None else nn.Parameter(torch.randn(length))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@settings(max_examples=40)
@given(
    d_in=st.integers(1, 4),
    d_out=st.integers(1, 4),
    bias=st.booleans(),
    flip=st.booleans(),
    rows=st.booleans(),
    zero=st.booleans(),
)
def test_a_map_is_the_linear_layer_that_it_is(
    d_in: int, d_out: int, bias: bool, flip: bool, rows: bool, zero: bool
) -> None:
    """Whichever way its matrix lies, also where both ways fit and the matrix is zero."""

    def forward(m: Own, x: Tensor) -> Tensor:
        z = (torch.mm if rows else torch.matmul)(x, m.kernel if flip else m.kernel.T)
        return z if m.shift is None else z + m.shift

    part = Own(forward, (d_in, d_out) if flip else (d_out, d_in), d_out if bias else None)
    if zero:
        nn.init.zeros_(part.kernel)
    part.kernel.requires_grad_(False)
    found = with_linear_layers(part)
    assert isinstance(found, nn.Linear)
    assert torch.equal(found.weight, part.kernel.T if flip else part.kernel)
    assert (found.weight.requires_grad, found.weight.is_contiguous()) == (False, True)
    x = torch.randn(5, d_in)
    torch.testing.assert_close(found(x), part(x))


NO_MAPS: dict[str, Callable[[Own, Tensor], object]] = {
    "an activation": lambda m, x: torch.relu(x @ m.kernel + m.shift),
    "twice the map": lambda m, x: 2 * (x @ m.kernel) + m.shift,
    "the matrix by its norm": lambda m, x: x @ (m.kernel / m.kernel.norm()) + m.shift,
    "a gradient of its own": lambda m, x: x @ m.kernel.detach() + m.shift,
    "a flat output": lambda m, x: (x @ m.kernel + m.shift).flatten(0, -2),
    "a table": lambda m, x: m.kernel[x] + m.shift,
    "two outputs": lambda m, x: (x @ m.kernel + m.shift, x),
    "no input": lambda m, x: m.kernel.sum(0) + m.shift + 0 * x,
}


@pytest.mark.parametrize("what", NO_MAPS)
def test_what_is_no_such_map_stays_as_it_is(what: str) -> None:
    assert isinstance(with_linear_layers(Own(NO_MAPS[what], (3, 3), 3)), Own)


@pytest.mark.parametrize(
    "module",
    [nn.Bilinear(2, 2, 2), nn.LayerNorm(3), nn.PReLU(3), nn.Conv1d(2, 2, 1), nn.BatchNorm1d(3)],
)
def test_modules_of_torch_stay_as_they_are(module: nn.Module) -> None:
    assert type(with_linear_layers(module)) is type(module)


def sequences() -> Problem:
    def build() -> nn.Module:
        return Applied(
            lambda m, x: m.out(torch.tanh(m.second(torch.tanh(m.first(x)))).mean(1)),
            first=Conv1D(5, 4),
            second=Conv1D(3, 5),
            out=nn.Linear(3, cases.CLASSES),
        )

    return cases.study(build, cases.images(cases.T, 4))


def converted() -> Problem:
    one = sequences()
    model = with_linear_layers(one.model)
    return Problem(model, one.loss, one.train, one.query)


def test_its_stand_in_is_noted_with_the_way_out() -> None:
    problem = sequences()
    exact = [block for block in problem.blocks if isinstance(block, ExactBlock)]
    assert [(block.name, block.reason) for block in exact] == [
        ("first", "Conv1D"),
        ("second", "Conv1D"),
    ]
    (note,) = (note for note in problem.notes if "with_linear_layers" in note)
    assert note.startswith("first, second: decomposition.layers.with_linear_layers(model) is")


def test_the_refusal_of_a_large_map_names_the_way_out_which_leads_to_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(find, "EXACT_LIMIT", 20)
    message = r"block first \(Conv1D\) has 25 parameters .*with_linear_layers\(model\)"
    with pytest.raises(UnsupportedModelError, match=message):
        sequences()
    monkeypatch.undo()
    problem = with_recipe(converted())
    monkeypatch.setattr(find, "EXACT_LIMIT", 20)
    assert all(isinstance(block, LinearBlock) for block in problem.blocks)
    assert "shares" in run(problem, settings=SMALL, progress=False).children


def test_its_curvature_is_that_of_the_map_in_the_order_of_the_transpose() -> None:
    one, other = sequences(), converted()
    order, start = [], 0
    for layer in (other.model.first, other.model.second, other.model.out):
        assert isinstance(layer, nn.Linear)
        weight = torch.arange(start, start + layer.weight.numel()).view_as(layer.weight)
        start += layer.weight.numel()
        order.append((weight if layer is other.model.out else weight.T).flatten())
        order.append(torch.arange(start, start + len(layer.bias)))
        start += len(layer.bias)
    order = torch.cat(order)
    torch.testing.assert_close(other.theta()[order], one.theta(), rtol=0, atol=0)
    for rung, expected in (("hessian", autograd.double_backward(one)), ("ggn", autograd.ggn(one))):
        scale = float(expected.abs().max())
        found = build_chain(other)[rung].dense()[order][:, order]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * scale)


def test_tied_maps_stay_as_they_are() -> None:
    model = nn.Sequential(Conv1D(3, 3), Conv1D(3, 3), Conv1D(3, 3))
    model[1].weight = model[0].weight
    assert [type(part) for part in with_linear_layers(model)] == [Conv1D, Conv1D, nn.Linear]
