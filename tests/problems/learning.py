"""What is asked of every built-in problem that is no table."""

from __future__ import annotations

import numpy as np
import torch
from torch.func import functional_call, grad, jvp, vmap

from decomposition import Problem
from decomposition.inputs import apply, double, take
from decomposition.problems import make_problem


def outputs(problem: Problem, part: str) -> torch.Tensor:
    with torch.no_grad():
        return apply(problem.double_model(), double(getattr(problem, part)[0]))


def accuracy(problem: Problem, part: str) -> float:
    return float((outputs(problem, part).argmax(1) == getattr(problem, part)[1]).double().mean())


def mean_loss(problem: Problem, part: str) -> float:
    f = outputs(problem, part)
    return float(problem.loss_function.per_example(f, getattr(problem, part)[1]).mean())


def constant_loss(problem: Problem) -> float:
    """Query loss of the training classes' frequencies, one added to each count."""
    counts = torch.bincount(problem.train[1], minlength=problem.num_outputs).double() + 1
    return float(-torch.log(counts / counts.sum())[problem.query[1]].mean())


def same(name: str) -> None:
    """The seed fixes data and parameters, whatever the global generators hold."""
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    one = make_problem(name, 5, quick=True)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    equal, other = make_problem(name, 5, quick=True), make_problem(name, 6, quick=True)
    for part in ("train", "query"):
        for a, b in zip(getattr(one, part), getattr(equal, part), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(one.theta(), equal.theta())
    assert not torch.equal(one.train[0], other.train[0])
    assert not torch.equal(one.theta(), other.theta())
    assert one.recipe == equal.recipe != other.recipe


def check_derivatives(problem: Problem) -> None:
    """In float64 under vmap: gradients of single examples, and a Hessian-vector product.

    The gradients' mean is that of the mean loss, and the product is the gradient's difference
    quotient; an example's gradient does not move with its neighbours.
    """
    model = problem.double_model()
    theta = {name: p.detach() for name, p in model.named_parameters()}
    x, y = (take(part, slice(0, 6)) for part in problem.train)
    x = double(x)

    def loss(values: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return problem.loss_function.per_example(functional_call(model, values, (x,)), y).mean()

    single = lambda x, y: grad(loss)(theta, x[None], y[None])  # noqa: E731
    rows = vmap(single)(x, y)
    mean = grad(loss)(theta, x, y)
    fewer = vmap(single)(x[:2], y[:2])
    for name in theta:
        torch.testing.assert_close(rows[name].mean(0), mean[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(rows[name][:2], fewer[name], rtol=1e-9, atol=1e-12)
        assert bool(rows[name].any()), f"{name} has no gradient"
    generator = torch.Generator().manual_seed(0)
    v = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in theta.items()
    }
    _, product = jvp(lambda values: grad(loss)(values, x, y), (theta,), (v,))
    step = 1e-5
    ahead, behind = (
        grad(loss)({name: p + sign * step * v[name] for name, p in theta.items()}, x, y)
        for sign in (1, -1)
    )
    for name in theta:
        quotient = (ahead[name] - behind[name]) / (2 * step)
        scale = float(quotient.abs().max()) + 1e-3
        torch.testing.assert_close(product[name], quotient, rtol=0, atol=1e-5 * scale)
