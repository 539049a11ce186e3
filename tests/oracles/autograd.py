"""Curvature by automatic differentiation on other paths than ours; closed forms are the judges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from decomposition.inputs import apply_with, double
from decomposition.problem import Problem


def _unflatten(problem: Problem, model: nn.Module, theta: Tensor) -> dict[str, Tensor]:
    shapes = {name: model.get_parameter(name).shape for name in problem.trainable}
    pieces = theta.split([shape.numel() for shape in shapes.values()])
    return {
        name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def outputs(problem: Problem, model: nn.Module, theta: Tensor) -> Tensor:
    return apply_with(model, _unflatten(problem, model, theta), double(problem.train[0]))


def _mean_loss(problem: Problem, model: nn.Module, theta: Tensor) -> Tensor:
    f, y = outputs(problem, model, theta).unflatten(1, problem.output_shape), problem.train[1]
    if y.is_floating_point():
        return nn.functional.mse_loss(f, y.double())
    return nn.functional.cross_entropy(f, y)


def hessian(problem: Problem) -> Tensor:
    """∇² of torch's own mean loss.

    PyTorch 2.13 drops ∂²/∂w∂x of a fused layer norm with weight w and input x here: the inner
    pass of torch.func.hessian is vectorised, and what it pulls back to w is not differentiated
    with respect to x.
    """
    model = problem.double_model()
    return torch.func.hessian(lambda theta: _mean_loss(problem, model, theta))(problem.theta())


def gradient(problem: Problem, model: nn.Module, theta: Tensor) -> Tensor:
    """∇ of the mean loss by one backward pass."""
    theta = theta.detach().clone().requires_grad_()
    return torch.autograd.grad(_mean_loss(problem, model, theta), theta)[0]


def double_backward(problem: Problem) -> Tensor:
    """∇² by plain autograd, a row at a time: nothing is vectorised."""
    model, theta = problem.double_model(), problem.theta().requires_grad_()
    (slope,) = torch.autograd.grad(_mean_loss(problem, model, theta), theta, create_graph=True)
    return torch.stack([torch.autograd.grad(one, theta, retain_graph=True)[0] for one in slope])


def differences(problem: Problem, step: float = 1e-3) -> Tensor:
    """∇² by central differences of the gradient, of fourth order."""
    theta, model = problem.theta(), problem.double_model()
    rows = []
    for unit in step * torch.eye(len(theta), dtype=torch.float64):
        once, twice = (
            gradient(problem, model, theta + k * unit) - gradient(problem, model, theta - k * unit)
            for k in (1, 2)
        )
        rows.append((8 * once - twice) / (12 * step))
    return torch.stack(rows)


def _vectorised(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return torch.func.jacrev(function)(theta)


def ggn(problem: Problem, plain: bool = False) -> Tensor:
    """(1/N) Σ Jᵀ Λ J with J by reverse mode and Λ by differentiating torch's loss twice.

    ``plain``: rows of J one at a time, nothing in them is vectorised.
    """
    model, theta, y = problem.double_model(), problem.theta(), problem.train[1]
    jacobian = (torch.autograd.functional.jacobian if plain else _vectorised)(
        lambda t: outputs(problem, model, t), theta
    )

    def loss(f: Tensor, target: Tensor) -> Tensor:
        f = f.unflatten(0, problem.output_shape)
        if target.is_floating_point():
            return nn.functional.mse_loss(f, target.double())
        return nn.functional.cross_entropy(f[None], target[None])

    curvature = torch.func.vmap(torch.func.hessian(loss))(outputs(problem, model, theta), y)
    return torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / len(y)
