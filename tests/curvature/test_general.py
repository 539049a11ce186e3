"""H, G and gradients of models beyond stacks of linear layers, and their invariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from decomposition.curvature import Empirical, Sampled, assembly, factors, graphs, terms
from decomposition.curvature.assembly import assemble_by_products, assemble_ggn, assemble_hessian
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import double, each, take, to
from decomposition.layers import LinearBlock
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied
from tests.oracles import autograd

CLOSED_FORM, DIFFERENCES = 1e-8, 1e-7
FUSED_LAYER_NORM = ("layer_norm",)
"""Cases for which torch.func.hessian is no oracle: see tests.oracles.autograd."""


@pytest.fixture(scope="module")
def hessian(general: Problem) -> Tensor:
    return assemble_hessian(general)


@pytest.fixture(scope="module")
def ggn(general: Problem) -> Tensor:
    return assemble_ggn(general)


def _close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    "general", [name for name in cases.GENERAL if name not in FUSED_LAYER_NORM], indirect=True
)
def test_hessian_equals_torch_func(general: Problem, hessian: Tensor) -> None:
    _close(hessian, autograd.hessian(general), CLOSED_FORM)


def test_hessian_equals_differences_of_the_gradient(general: Problem, hessian: Tensor) -> None:
    _close(hessian, autograd.differences(general), DIFFERENCES)


def test_hessian_through_a_fused_layer_norm_is_that_of_its_formula() -> None:
    """A derivative that PyTorch 2.13 loses where the pass inside is the vectorised one."""

    def written_out(model: nn.Module, x: Tensor) -> Tensor:
        h = model.inner(x)
        centred = h - h.mean(-1, keepdim=True)
        h = centred / (centred.square().mean(-1, keepdim=True) + model.norm.eps).sqrt()
        return model.out(torch.tanh(h * model.norm.weight + model.norm.bias))

    def build(forward: Callable) -> Callable[[], nn.Module]:
        return lambda: Applied(
            forward, inner=nn.Linear(4, 5), norm=nn.LayerNorm(5), out=nn.Linear(5, 3)
        )

    fused = cases.study(build(lambda m, x: m.out(torch.tanh(m.norm(m.inner(x))))), cases.images(4))
    formula = cases.study(build(written_out), cases.images(4))
    _close(assemble_hessian(fused), assemble_hessian(formula), 1e-12)
    _close(assemble_hessian(formula), autograd.hessian(formula), 1e-12)


def test_attention_of_pytorch_is_differentiated_in_elementary_operations() -> None:
    """The fused kernels that its encoder layer calls have no second derivative."""

    def build() -> nn.Module:
        layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True)
        return Applied(lambda m, x: m.out(m.layer(x).mean(1)), layer=layer, out=nn.Linear(4, 3))

    problem = cases.study(build, cases.images(cases.T, 4))
    assert problem.blocks[2].name == "layer.linear1"
    assert isinstance(problem.blocks[2], LinearBlock)
    _close(assemble_hessian(problem), autograd.differences(problem), DIFFERENCES)
    with sdpa_kernel(SDPBackend.MATH):
        expected = autograd.ggn(problem)
    _close(assemble_ggn(problem), expected, CLOSED_FORM)


class Gated(torch.autograd.Function):
    """x y, whose derivative by x forgets that it depends on y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return x * y

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return gradient * y.detach(), gradient * x

    @staticmethod
    def jvp(ctx, x_tangent: Tensor, y_tangent: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        return x_tangent * y + x * y_tangent


def test_wrong_second_derivatives_are_found_out_by_their_asymmetry() -> None:
    problem = cases.study(
        lambda: Applied(
            lambda m, x: Gated.apply(m.inner(x), m.gate(x)),
            inner=nn.Linear(4, 3),
            gate=nn.Linear(4, 3),
        ),
        cases.images(4),
    )
    with pytest.raises(UnsupportedModelError, match=r"second derivatives .* are not symmetric"):
        assemble_by_products(problem)


def test_ggn_equals_jacobians_around_the_loss_curvature(general: Problem, ggn: Tensor) -> None:
    _close(ggn, autograd.ggn(general), CLOSED_FORM)


def test_gradients_of_the_examples_are_those_of_each_alone(general: Problem) -> None:
    x, y = general.train
    found = per_example_gradients(general, x, y)
    for row in (0, 3, general.num_examples - 1):
        one = Problem(general.model, general.loss, _rows(general, [row]), general.query)
        alone = autograd.gradient(one, one.double_model(), one.theta())
        _close(found[row], alone, 1e-12)


def test_mean_gradient_of_the_examples_is_that_of_the_mean_loss(general: Problem) -> None:
    found = per_example_gradients(general, *general.train).mean(0)
    expected = autograd.gradient(general, general.double_model(), general.theta())
    _close(found, expected, 1e-12)


def test_empirical_fisher_is_the_second_moment_of_the_gradients(general: Problem) -> None:
    g = per_example_gradients(general, *general.train)
    _close(assemble_ggn(general, Empirical()), g.T @ g / general.num_examples, 1e-12)


@pytest.mark.parametrize("case", ["cnn", "attention", "two_inputs"])
def test_sampled_fishers_are_unbiased(case: str) -> None:
    """Trace and a quadratic form: the mean over 30 draws within 3 standard errors."""
    problem = cases.GENERAL[case]()
    exact = assemble_ggn(problem)
    draws = [assemble_ggn(problem, Sampled(1, seed)) for seed in range(30)]
    direction = torch.cos(torch.arange(len(exact), dtype=torch.float64))
    for functional in (torch.trace, lambda m: direction @ m @ direction):
        values = torch.stack([functional(draw) for draw in draws])
        error = float(values.std()) / len(draws) ** 0.5
        assert abs(float(values.mean() - functional(exact))) < 3 * error


def _rows(problem: Problem, rows: list[int] | Tensor) -> tuple:
    x, y = problem.train
    return take(x, rows), y[rows]


Assemble = Callable[[Problem], Tensor]


@pytest.fixture(params=["ggn", "hessian"])
def both(request: pytest.FixtureRequest, ggn: Tensor, hessian: Tensor) -> tuple[Assemble, Tensor]:
    """What assembles a matrix, and the matrix of this problem."""
    return (assemble_ggn, ggn) if request.param == "ggn" else (assemble_hessian, hessian)


def test_order_and_duplication_of_examples_change_nothing(
    general: Problem, both: tuple[Assemble, Tensor]
) -> None:
    assemble, whole = both
    order = torch.from_numpy(np.random.default_rng(0).permutation(general.num_examples))
    train = _rows(general, torch.cat([order, order]))
    _close(assemble(Problem(general.model, general.loss, train, general.query)), whole, 1e-12)


def test_splitting_into_batches_changes_nothing(
    general: Problem, both: tuple[Assemble, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble, whole = both
    monkeypatch.setattr(terms, "BATCH_BYTES", 1)
    monkeypatch.setattr(graphs, "GRAPH_BYTES", 1)
    _close(assemble(general), whole, 1e-12)


def test_single_precision_stays_within_its_rounding(
    general: Problem, both: tuple[Assemble, Tensor]
) -> None:
    """Data and parameters rounded to float32: the curvature is computed in float64 all the same."""
    assemble, whole = both

    def single(pair: tuple) -> tuple:
        x, y = pair
        return to(x, torch.float32), y.float() if y.is_floating_point() else y

    model = general.double_model().float()
    problem = Problem(model, general.loss, single(general.train), single(general.query))
    found = assemble(problem)
    assert found.dtype == torch.float64
    _close(found, whole, 1e-5)


def test_the_model_and_its_data_are_left_untouched(general: Problem) -> None:
    x = each(general.train[0], torch.clone)
    state = {name: value.clone() for name, value in general.model.state_dict().items()}
    assemble_ggn(general)
    assemble_hessian(general)
    per_example_gradients(general, *general.train)
    torch.testing.assert_close(double(general.train[0]), double(x), rtol=0, atol=0)
    torch.testing.assert_close(dict(general.model.state_dict()), state, rtol=0, atol=0)


def test_fewer_directions_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cases.attention()
    whole = assemble_hessian(problem)
    monkeypatch.setattr(assembly, "DIRECTIONS", 10)
    _close(assemble_hessian(problem), whole, 1e-13)


def test_products_of_positions_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cases.sequence()
    bases = factors.kronecker_bases(problem)
    whole = factors.ggn_diagonals(problem, bases)
    monkeypatch.setattr(factors, "PRODUCT_NUMBERS", 1)
    for name, values in factors.ggn_diagonals(problem, bases).items():
        _close(values, whole[name], 1e-13)
