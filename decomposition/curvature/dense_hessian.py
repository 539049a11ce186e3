"""The dense Hessian of any model by Hessian-vector products, many directions at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature.preactivation import as_double, differentiable
from decomposition.curvature.weight_sharing import Positions
from decomposition.device import chunk_bytes
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import apply_with, double, parts_of, take
from decomposition.memory import shrinking
from decomposition.problem import Problem

DIRECTIONS = 16
"""Directions of one vectorised sweep on the CPU."""
DIRECTIONS_ON_CUDA = 256
"""The same on CUDA, where few directions leave the device idle."""
BAR_DELAY = 5.0
"""Seconds before a progress bar appears."""
SYMMETRY = 1e-8
"""Largest difference of the triangles, relative to the largest entry."""
SWEEP_NUMBERS = 2**23
"""Numbers of the layers' inputs and outputs in one sweep: fewer leave the vector units idle."""


def assemble_by_products(problem: Problem) -> Float[Tensor, "P P"]:
    """H = (1/N) Σ ∇²_θ ℓ_n, column by column: H e_i = ∇_θ (∇_θ L · e_i).

    Reverse-over-reverse: the gradient of a batch is differentiated once, and its graph serves all
    directions (a fifth faster than forward-over-reverse here). The two triangles agree to rounding
    and are averaged.

    Raises:
        UnsupportedModelError: they do not, or the model cannot be differentiated.
        OutOfMemoryError: the second derivatives of a single example do not fit.
    """
    positions = Positions(problem)
    model, every = positions.model, positions.parameters
    chosen = {name: every[name] for name in problem.trainable}
    sizes = [value.numel() for value in chosen.values()]
    x, y = problem.rows("train")
    x_all, y_all = double(x), as_double(y)
    numbers = positions.numbers_per_example(x_all, 1)
    numbers += sum(part[0].numel() for part in parts_of(x_all).values())
    size = problem.num_parameters
    device, examples = problem.device, problem.num_examples
    directions = min(DIRECTIONS if device.type == "cpu" else DIRECTIONS_ON_CUDA, size)
    step = chunk_bytes(device, 8 * SWEEP_NUMBERS) // (8 * directions * numbers)
    out = torch.zeros(size, size, dtype=torch.float64, device=device)

    def unflat(direction: Tensor) -> dict[str, Tensor]:
        pieces = zip(chosen.items(), direction.split(sizes), strict=True)
        return {name: piece.view_as(value) for (name, value), piece in pieces}

    def columns(pull: Callable, rows: slice) -> Float[Tensor, "rows P"]:
        def column(direction: Tensor) -> Tensor:
            image: dict[str, Tensor] = pull(unflat(direction))[0]
            return torch.cat([image[name].flatten() for name in chosen])

        numbers = torch.arange(rows.start, rows.stop, device=device)
        with differentiable(model):
            return torch.func.vmap(column)(torch.nn.functional.one_hot(numbers, size).double())

    def graph(rows: slice) -> tuple[int, Callable]:
        """Of the gradient of some examples, tried on one direction while they can yet be fewer."""
        x, y = take(x_all, rows), y_all[rows]

        def total(parameters: dict[str, Tensor]) -> Tensor:
            outputs = apply_with(model, {**every, **parameters}, x)
            return problem.loss_function.per_example(outputs, y).sum()

        with differentiable(model):
            _, pull = torch.func.vjp(torch.func.grad(total), chosen)  # pyright: ignore[reportAssignmentType]
        columns(pull, slice(0, 1))
        return len(y), pull

    with tqdm(
        total=examples * size,
        desc="Hessian",
        unit="product",
        unit_scale=True,
        delay=BAR_DELAY,
        disable=None,
    ) as bar:
        for count, pull in shrinking(graph, examples, step):
            start = 0
            for found in shrinking(partial(columns, pull), size, directions):
                out[start : start + len(found)] += found
                start += len(found)
                bar.update(count * len(found))
    out.div_(problem.num_examples)
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
