"""The ``Conv1D`` of Hugging Face transformers: a linear layer whose weight lies the other way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import CHAIN, EKFAC, KFAC, build_chain, build_lattice
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.layers import LinearBlock
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied
from tests.oracles import autograd
from tests.retraining.plain import RECIPE, with_recipe
from tests.retraining.test_batched import assert_equal_to_plain
from tests.text import transformers

Conv1D = transformers.pytorch_utils.Conv1D


def forward(model: nn.Module, x: Tensor) -> Tensor:
    return model.last(torch.tanh(model.inner(torch.tanh(model.first(x)))).mean(1))


def problem() -> Problem:
    def build() -> nn.Module:
        made = Applied(forward, first=Conv1D(5, 4), inner=Conv1D(3, 5), last=Conv1D(3, 3))
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.5)
        return made

    return cases.study(build, cases.images(cases.T, 4))


def twin(of: Problem) -> tuple[Problem, Tensor]:
    """The same in torch.nn.Linear layers, and where each parameter lies there."""
    layers, places = {}, []
    for name, part in of.model.named_children():
        start = sum(map(len, places))
        d_in, d_out = part.weight.shape
        layer = layers[name] = nn.Linear(d_in, d_out).double()
        with torch.no_grad():
            layer.weight.copy_(part.weight.T)
            layer.bias.copy_(part.bias)
        places.append(start + torch.arange(d_in * d_out).view(d_out, d_in).T.flatten())
        places.append(start + d_in * d_out + torch.arange(d_out))
    return Problem(Applied(forward, **layers), of.loss, of.train, of.query), torch.cat(places)


def test_its_blocks_are_linear_and_of_the_transpose() -> None:
    one = problem()
    assert one.notes == ()
    for block in one.blocks:
        assert isinstance(block, LinearBlock)
        assert (block.transposed, block.bias) == (True, True)


def test_every_rung_is_that_of_linear_layers_in_another_order() -> None:
    one = problem()
    other, places = twin(one)
    extra = {"reduced": KFAC(sharing="reduce"), "corrected": EKFAC(sharing="reduce")}
    found, expected = build_chain(one, extra=extra), build_chain(other, extra=extra)
    v = cases.normal(one.num_parameters, 2, seed=3)
    back = torch.empty_like(v)
    back[places] = v
    for rung in (*CHAIN, *extra):
        matrix = expected[rung].dense()[places][:, places]
        scale = float(matrix.abs().max())
        torch.testing.assert_close(found[rung].dense(), matrix, rtol=0, atol=1e-12 * scale)
        product = expected[rung].matvec(back)[places]
        torch.testing.assert_close(found[rung].matvec(v), product, rtol=0, atol=1e-12 * scale)
        solution = expected[rung].solve(back, damping=0.1)[places]
        torch.testing.assert_close(found[rung].solve(v, damping=0.1), solution, rtol=1e-9, atol=0)
    gradients = per_example_gradients(other, *other.train)[:, places]
    torch.testing.assert_close(per_example_gradients(one, *one.train), gradients)


def test_its_curvature_is_that_of_plain_double_backward() -> None:
    one = problem()
    lattice = build_lattice(one)
    for rung, expected in (("hessian", autograd.double_backward(one)), ("ggn", autograd.ggn(one))):
        scale = float(expected.abs().max())
        torch.testing.assert_close(lattice[rung].dense(), expected, rtol=0, atol=1e-9 * scale)
    assert lattice["ekfac"].trace() == pytest.approx(lattice["block_ggn"].trace(), rel=1e-12)
    g, b, e, k = (lattice[rung].dense() for rung in CHAIN[1:])
    squares = [float((x - y).square().sum()) for x, y in ((g, b), (b, e), (e, k), (g, k))]
    assert squares[3] == pytest.approx(sum(squares[:3]), rel=1e-9)


def test_many_copies_of_it_are_trained_as_one_is() -> None:
    assert_equal_to_plain(with_recipe(problem(), RECIPE), examples=5)
