"""Rows of the generalised Jacobian of any model: R_nᵀ J_n of every example, in parameter order.

Linear blocks have them as products of their terms, Σ_t s_t ⊗ a_t. For exact blocks a vector-
Jacobian product is vectorised over examples and columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.preactivation import as_double, differentiable, plain_gradients
from decomposition.curvature.weight_sharing import Positions, Root
from decomposition.device import chunk_bytes
from decomposition.inputs import Inputs, apply_with, double, each, rows_in, take
from decomposition.layers import Block, ExactBlock
from decomposition.losses import Loss
from decomposition.memory import shrinking
from decomposition.problem import Problem

GRADIENT_ROWS = 256


class JacobianRows:
    """Evaluates R_nᵀ J_n, for all parameters or those of some blocks."""

    def __init__(self, problem: Problem, blocks: Iterable[Block] | None = None) -> None:
        """Prepare a float64 copy of the model."""
        self.blocks = tuple(problem.blocks if blocks is None else blocks)
        self.size = sum(block.size for block in self.blocks)
        self.positions = Positions(problem)

    def __call__(self, x: Inputs, y: Tensor, root: Root) -> Float[Tensor, "n K width"]:
        """Rows of the chosen blocks side by side, for float64 inputs."""
        terms = self.positions.terms(x, y, root)
        n, _, count = terms.columns.shape
        rows = terms.columns.new_empty(n, count, self.size)
        exact = [block for block in self.blocks if isinstance(block, ExactBlock)]
        pulled = self._exact(x, terms.columns, exact) if exact else {}
        start = 0
        for block in self.blocks:
            part = rows[:, :, start : start + block.size]
            if isinstance(block, ExactBlock):
                part.copy_(torch.cat([pulled[name].flatten(2) for name in block.parameters], 2))
            else:
                a, s = terms.inputs[block.name], terms.roots[block.name]
                product = s.mT @ a.unsqueeze(-3)  # (*G, n, K, d, width)
                product = product.movedim((-4, -3), (0, 1)).flatten(2, -2)  # (n, K, d_out, width)
                split = block.d_out * block.d_in
                weight = product[..., : block.d_in]
                part[:, :, :split] = (weight.mT if block.transposed else weight).flatten(2)
                if block.bias:
                    part[:, :, split:] = product[..., block.d_in]
            start += block.size
        return rows

    def numbers_per_example(self, x: Inputs, columns: int) -> int:
        """Numbers that the rows of one example and their making take."""
        return 3 * columns * self.size + self.positions.numbers_per_example(x, columns)

    def _exact(
        self, x: Inputs, columns: Float[Tensor, "n C K"], blocks: list[ExactBlock]
    ) -> dict[str, Float[Tensor, "n K ..."]]:
        """Rows of exact blocks' parameters by name."""
        model, every = self.positions.model, self.positions.parameters
        chosen = {name: every[name] for block in blocks for name in block.parameters}

        def one(x_n: Inputs, columns_n: Tensor) -> dict[str, Tensor]:
            def outputs(parameters: dict[str, Tensor]) -> Tensor:
                alone = each(x_n, lambda part: part[None])
                return apply_with(model, {**every, **parameters}, alone)[0]

            _, vjp = torch.func.vjp(outputs, chosen)  # pyright: ignore[reportAssignmentType]
            return torch.func.vmap(vjp)(columns_n.mT)[0]

        with differentiable(model):
            return torch.func.vmap(one)(x, columns)


def gradient_root(loss: Loss) -> Root:
    """∇_f ℓ as the one column: the rows are then per-example gradients."""

    def root(f: Tensor, y: Tensor) -> Tensor:
        return torch.func.grad(lambda g: loss.per_example(g, y).sum())(f)[:, :, None]

    return root


def per_example_gradients(problem: Problem, x: Inputs, y: Tensor) -> Float[Tensor, "N P"]:
    """∇_θ ℓ_n for every example, rows in parameter order (float64)."""
    if problem.plain:
        assert isinstance(x, Tensor)
        return plain_gradients(problem, x, y)
    rows, root = JacobianRows(problem), gradient_root(problem.loss_function)
    one = 8 * rows.numbers_per_example(double(take(x, slice(0, 1))), 1)
    chunk = chunk_bytes(y.device, GRADIENT_ROWS * one) // one

    def some(part: slice) -> Tensor:
        return rows(double(take(x, part)), as_double(y[part]), root)[:, 0]

    return torch.cat(list(shrinking(some, rows_in(x), chunk)))
