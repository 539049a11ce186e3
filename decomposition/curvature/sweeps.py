"""The dense Hessian of any model by Hessian-vector products, many directions at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.positions import Positions
from decomposition.curvature.preactivation import as_double, differentiable
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import apply_with, double, parts_of, rows_in, take
from decomposition.problem import Problem

DIRECTIONS = 32
"""Directions of one vectorised sweep."""
SYMMETRY = 1e-8
"""Largest difference of the triangles, relative to the largest entry."""
SWEEP_NUMBERS = 2**22
"""Numbers of the layers' inputs and outputs in one sweep: more leaves the cache."""


def assemble_by_products(problem: Problem) -> Float[Tensor, "P P"]:
    """H = (1/N) Σ ∇²_θ ℓ_n, column by column: H e_i = ∇_θ (∇_θ L · e_i).

    Forward-over-reverse (Pearlmutter 1994, doi 10.1162/neco.1994.6.1.147). The two triangles
    agree to rounding and are averaged.

    Raises:
        UnsupportedModelError: they do not, or the model cannot be differentiated.
    """
    positions = Positions(problem)
    model, every = positions.model, positions.parameters
    chosen = {name: every[name] for name in problem.trainable}
    sizes = [value.numel() for value in chosen.values()]
    x_all, y_all = double(problem.train[0]), as_double(problem.train[1])
    numbers = positions.numbers_per_example(x_all, 1)
    numbers += sum(part[0].numel() for part in parts_of(x_all).values())
    size = problem.parameters
    directions = min(DIRECTIONS, size)
    step = max(1, SWEEP_NUMBERS // (directions * numbers))
    out = torch.zeros(size, size, dtype=torch.float64, device=y_all.device)

    for start in range(0, rows_in(x_all), step):
        x, y = take(x_all, slice(start, start + step)), y_all[start : start + step]

        def total(parameters: dict[str, Tensor], x=x, y=y) -> Tensor:
            outputs = apply_with(model, {**every, **parameters}, x)
            return problem.loss_function.per_example(outputs, y).sum()

        def column(direction: Tensor, total=total) -> Tensor:
            tangent = {
                name: piece.view_as(value)
                for (name, value), piece in zip(chosen.items(), direction.split(sizes), strict=True)
            }
            outputs = torch.func.jvp(torch.func.grad(total), (chosen,), (tangent,))
            image: dict[str, Tensor] = outputs[1]
            return torch.cat([image[name].flatten() for name in chosen])

        for first in range(0, size, directions):
            rows = torch.arange(first, min(first + directions, size), device=out.device)
            units = torch.nn.functional.one_hot(rows, size).double()
            with differentiable(model):
                out[rows] += torch.func.vmap(column)(units)
    out.div_(problem.examples)
    transposed = out.T.clone()
    gap, scale = float((out - transposed).abs().max()), float(out.abs().max())
    if gap > SYMMETRY * scale:
        raise UnsupportedModelError(
            f"the second derivatives of {type(model).__name__} are not symmetric: the two "
            f"triangles of H differ by {gap:.3g} where its largest entry is {scale:.3g}, so the "
            "derivative of some operation is wrong (a custom autograd function, or a fused "
            "operation of PyTorch); write that operation out in elementary ones"
        )
    return out.add_(transposed).div_(2.0)
