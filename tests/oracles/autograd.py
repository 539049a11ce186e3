"""Curvature by torch.func: another path, but autograd like ours; closed forms are the judges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decomposition.problem import Problem


def _unflatten(model: nn.Module, theta: Tensor) -> dict[str, Tensor]:
    parts, start = {}, 0
    for name, parameter in model.named_parameters():
        parts[name] = theta[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return parts


def outputs(problem: Problem, model: nn.Module, theta: Tensor) -> Tensor:
    x = problem.train[0].double()
    return torch.func.functional_call(model, _unflatten(model, theta), (x,))


def hessian(problem: Problem) -> Tensor:
    """∇² of torch's own mean loss."""
    model = problem.double_model()

    def mean_loss(theta: Tensor) -> Tensor:
        f, y = outputs(problem, model, theta), problem.train[1]
        if y.is_floating_point():
            return nn.functional.mse_loss(f, y.double())
        return nn.functional.cross_entropy(f, y)

    return torch.func.hessian(mean_loss)(problem.theta())


def ggn(problem: Problem) -> Tensor:
    """(1/N) Σ Jᵀ Λ J with J by reverse mode and Λ by differentiating torch's loss twice."""
    model, theta, y = problem.double_model(), problem.theta(), problem.train[1]
    jacobian = torch.func.jacrev(lambda t: outputs(problem, model, t))(theta)

    def loss(f: Tensor, target: Tensor) -> Tensor:
        if target.is_floating_point():
            return nn.functional.mse_loss(f, target.double())
        return nn.functional.cross_entropy(f[None], target[None])

    curvature = torch.func.vmap(torch.func.hessian(loss))(outputs(problem, model, theta), y)
    return torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / len(y)
