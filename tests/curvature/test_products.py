"""Products of any model against the matrices of the dense chain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from decomposition.chain import build_lattice, cross_layer
from decomposition.curvature import EXACT, Empirical, Fisher, Sampled, block_products, products
from decomposition.curvature import graphs as graphs_module
from decomposition.curvature.block_products import block_ggn_product
from decomposition.curvature.convolutions import PatchConvolution, with_patches
from decomposition.curvature.products import (
    Product,
    block_hessian_product,
    ggn_product,
    hessian_product,
)
from decomposition.errors import DecompositionError, UnsupportedModelError
from decomposition.problem import Problem
from tests import cases, general


class HalfForgotten(torch.autograd.Function):
    """a b, whose derivative by a forgets that it depends on b."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a, b):
        return a * b

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        a, b = ctx.saved_tensors
        return gradient * b.detach(), gradient * a

    @staticmethod
    def jvp(ctx, moved_a, moved_b):
        a, b = ctx.saved_tensors
        return moved_a * b + a * moved_b


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return HalfForgotten.apply(self.first(x), self.second(x))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    case.__name__: case
    for case in (
        cases.tanh,
        cases.tanh_regression,
        cases.residual,
        general.cnn,
        general.conv1d,
        general.conv_grouped,
        general.called_twice,
        general.sequence,
        general.layer_norm,
        general.attention,
        general.tied,
        general.embedding,
        general.frozen,
        general.bare_parameters,
        general.named_inputs,
    )
}
MAKERS = {
    "hessian": hessian_product,
    "block_hessian": block_hessian_product,
    "ggn": ggn_product,
    "block_ggn": block_ggn_product,
}


@pytest.fixture(params=list(PROBLEMS))
def problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param]()


def columns(problem: Problem, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(problem.num_parameters, count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_product_is_that_of_the_matrix(problem: Problem, name: str) -> None:
    v = columns(problem)
    expected = build_lattice(problem)[name].dense() @ v
    torch.testing.assert_close(MAKERS[name](problem)(v), expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", list(MAKERS))
def test_batches_and_chunks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = general.cnn()
    v = columns(problem, 5)
    expected = MAKERS[name](problem)(v)
    monkeypatch.setattr(graphs_module, "GRAPH_BYTES", 1)
    monkeypatch.setattr(graphs_module, "COLUMN_NUMBERS", 2 * problem.num_parameters)
    monkeypatch.setattr(graphs_module, "TOGETHER", 1)
    torch.testing.assert_close(MAKERS[name](problem)(v), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", list(MAKERS))
def test_single_precision_is_close_and_says_so(name: str) -> None:
    problem = general.cnn()
    v = columns(problem)
    exact, product = MAKERS[name](problem)(v), MAKERS[name](problem, torch.float32)
    error = torch.linalg.norm(product(v) - exact) / torch.linalg.norm(exact)
    assert float(error) < 1e-5
    assert "float32" in product.notes[0]


def test_products_are_counted_in_columns() -> None:
    problem = cases.tanh()
    product = ggn_product(problem)
    product(columns(problem, 3))
    product(columns(problem, 2))
    assert product.count == 5


def weights_and_biases(problem: Problem) -> list[slice]:
    return [
        slice(block.start + part.start, block.start + part.stop)
        for block in problem.blocks
        for part in cross_layer.parts_of(block).values()
    ]


@pytest.mark.parametrize("parts", [None, weights_and_biases])
@pytest.mark.parametrize("fisher", [EXACT, Sampled(2), Empirical()])
@pytest.mark.parametrize("made", [0, 1024], ids=["none made", "made"])
def test_one_sweep_for_all_blocks_is_passes_for_each(
    problem: Problem, parts, fisher: Fisher, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_products, "MADE", made)
    product = block_ggn_product(problem, parts=parts and parts(problem), fisher=fisher)
    v = columns(problem, 40)
    assert product.sweeps(40)
    assert not product.sweeps(0)
    torch.testing.assert_close(product(v), Product.matvec(product, v), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("numbers", [0, 500, products.MADE_NUMBERS])
def test_blocks_that_are_made_multiply_as_passes_do(
    problem: Problem, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "MADE_NUMBERS", numbers)
    product, v = block_hessian_product(problem), columns(problem, 30)
    few, many = product(v[:, :2]), product(v)
    expected = build_lattice(problem)["block_hessian"].dense() @ v
    torch.testing.assert_close(few, expected[:, :2], rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(many, expected, rtol=1e-8, atol=1e-11)
    assert product.count == 32


PARTS = {"block_hessian": hessian_product, "block_ggn": ggn_product}


@pytest.mark.parametrize("name", list(PARTS))
def test_a_part_is_a_block_of_the_matrix(problem: Problem, name: str) -> None:
    whole = build_lattice(problem)[name.removeprefix("block_")].dense()
    for block in problem.blocks:
        v = general.normal(block.size, 2)
        found = PARTS[name](problem, part=block.slice)(v)
        expected = whole[block.slice, block.slice] @ v
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


def test_a_part_is_whole_tensors() -> None:
    with pytest.raises(DecompositionError, match=r"parameters 1 to 4 of .* no whole tensors"):
        ggn_product(general.cnn(), part=slice(1, 5))


def test_half_precision_is_refused() -> None:
    with pytest.raises(DecompositionError, match=r"float64 or float32, not torch.float16"):
        hessian_product(cases.tanh(), torch.float16)


def test_a_wrong_second_derivative_is_found_out() -> None:
    with pytest.raises(UnsupportedModelError, match=r"not symmetric: u·Hv = "):
        hessian_product(cases.classification(Wrong()))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"stride": (2, 1), "padding": (0, 1)},
        {"bias": False},
    ],
)
def test_a_convolution_on_patches_is_the_same_function(options: dict) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 40, (3, 2), **options).double()
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    expected = layer(x)
    model = nn.Sequential(layer)
    layer.__class__ = PatchConvolution
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_patches_are_used_where_weights_are_many() -> None:
    def kinds(side: int) -> list[bool]:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 64, 3)).double()
        with_patches(model, torch.zeros(2, 1, side, side, dtype=torch.float64))
        return [isinstance(layer, PatchConvolution) for layer in model]

    assert kinds(5) == [False, True]
    assert kinds(20) == [False, False]
