"""Functions in elementary operations: right where PyTorch's own vectorised derivatives are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import LATTICE, build_lattice
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.elementary import ElementaryOperations
from decomposition.problem import Problem
from decomposition.retraining.trial import choose_way
from tests import general as cases
from tests.models import Applied
from tests.oracles import autograd


def _prelu(model: nn.Module, h: Tensor) -> Tensor:
    return model.act(h)


def _function(model: nn.Module, h: Tensor) -> Tensor:
    return nn.functional.prelu(h, model.act.weight)


def _method(model: nn.Module, h: Tensor) -> Tensor:
    return h.prelu(model.act.weight)


def _written_out(model: nn.Module, h: Tensor) -> Tensor:
    return torch.where(h > 0, h, model.act.weight * h)


def problem(act: Callable[[nn.Module, Tensor], Tensor], channels: int, n: int) -> Problem:
    return cases.study(
        lambda: Applied(
            lambda m, x: m.out(act(m, m.inner(x))),
            inner=nn.Linear(4, 5),
            act=nn.PReLU(channels),
            out=nn.Linear(5, cases.CLASSES),
        ),
        cases.images(4),
        n=n,
    )


@pytest.mark.parametrize("n", [cases.CLASSES, cases.N])
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("act", [_prelu, _function, _method])
def test_prelu_is_what_it_is_written_out(act: Callable, channels: int, n: int) -> None:
    """With as many examples as outputs PyTorch's own derivative would be wrong, and silently so."""
    one, other = problem(act, channels, n), problem(_written_out, channels, n)
    found, expected = build_lattice(one), build_lattice(other)
    for rung in LATTICE:
        scale = float(expected["hessian"].dense().abs().max())
        torch.testing.assert_close(
            found[rung].dense(), expected[rung].dense(), rtol=0, atol=1e-12 * scale
        )
    torch.testing.assert_close(found["hessian"].dense(), autograd.hessian(one), rtol=0, atol=1e-8)
    torch.testing.assert_close(found["ggn"].dense(), autograd.ggn(one), rtol=0, atol=1e-8)
    mean = autograd.gradient(one, one.double_model(), one.theta())
    gradients = per_example_gradients(one, *one.train)
    torch.testing.assert_close(gradients.mean(0), mean, rtol=0, atol=1e-12)


def _normalised(n: int) -> Problem:
    return cases.study(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)),
            nn.Tanh(),
            nn.Linear(5, cases.CLASSES),
        ),
        cases.images(4),
        n=n,
    )


def _normalised_by_hand(theta: Tensor, x: Tensor) -> Tensor:
    """The same network, its parameters read from θ: b, g, v, W, c in their order."""
    bias, g, v, weight, last = theta.split([5, 5, 20, 5 * cases.CLASSES, cases.CLASSES])
    v = v.view(5, 4)
    first = g.view(5, 1) * v / v.square().sum(1, keepdim=True).sqrt()
    return torch.tanh(x @ first.T + bias) @ weight.view(cases.CLASSES, 5).T + last


@pytest.mark.parametrize("n", [cases.CLASSES, cases.N])
def test_weight_normalisation_is_what_it_is_written_out(n: int) -> None:
    """PyTorch's fused operation loses a part of H under ``torch.func``."""
    one = _normalised(n)
    x, y = one.train
    assert list(one.trainable) == [
        "0.bias",
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "2.weight",
        "2.bias",
    ]

    def objective(theta: Tensor) -> Tensor:
        return nn.functional.cross_entropy(_normalised_by_hand(theta, x.double()), y)

    expected = torch.func.hessian(objective)(one.theta())
    chain = build_lattice(one)
    torch.testing.assert_close(chain["hessian"].dense(), expected, rtol=0, atol=1e-10)
    jacobian = torch.func.jacrev(lambda p: _normalised_by_hand(p, x.double()))(one.theta())
    p = _normalised_by_hand(one.theta(), x.double()).softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    ggn = torch.einsum("ncp,ncd,ndq->pq", jacobian, inner, jacobian) / n
    torch.testing.assert_close(chain["ggn"].dense(), ggn, rtol=0, atol=1e-10)


def _bilinear(function: Callable) -> Problem:
    return cases.study(
        lambda: Applied(
            lambda m, x: m.out(torch.tanh(function(m.pair, x, x.flip(1)))),
            pair=nn.Bilinear(4, 4, 3),
            out=nn.Linear(3, cases.CLASSES),
        ),
        cases.images(4),
    )


def test_a_bilinear_layer_is_what_it_is_written_out() -> None:
    """PyTorch's own has no batched form: it is slow, and says so in a warning."""
    one = _bilinear(lambda pair, a, b: pair(a, b))
    written = _bilinear(
        lambda pair, a, b: ((a @ pair.weight) * b[None]).sum(2).T + pair.bias  # (o, n, j) by o
    )
    found, expected = build_lattice(one), build_lattice(written)
    for rung in LATTICE:
        torch.testing.assert_close(found[rung].dense(), expected[rung].dense(), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        found["hessian"].dense(), autograd.double_backward(written), rtol=0, atol=1e-12
    )
    assert choose_way(one.model, one.train[0]) == "function"


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_norms_of_weights_are_taken_over_all_other_dimensions(dim: int) -> None:
    v = cases.normal(3, 5, 2)
    g = torch.norm_except_dim(v, 2, dim) + 1.0
    with ElementaryOperations():
        found = torch._weight_norm(v, g, dim)
    torch.testing.assert_close(found, torch._weight_norm(v, g, dim), rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2), (3, 5, 2, 2)])
@pytest.mark.parametrize("channels", [1, 5])
def test_channels_are_the_second_dimension(channels: int, shape: tuple[int, ...]) -> None:
    x, weight = cases.normal(*shape), cases.normal(channels, seed=1)
    with ElementaryOperations():
        found = nn.functional.prelu(x, weight)
    torch.testing.assert_close(found, nn.functional.prelu(x, weight), rtol=0, atol=0)
