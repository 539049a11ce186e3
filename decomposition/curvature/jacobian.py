"""The generalised Jacobian of any model: R_nᵀ J_n of every example, as rows or by its products.

Rows of linear blocks are products of their terms, Σ_t s_t ⊗ a_t. For exact blocks a vector-
Jacobian product is vectorised over examples and columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.graphs import Graph, Graphs
from decomposition.curvature.passes import differentiable
from decomposition.curvature.terms import LayerTerms, Root, as_double
from decomposition.device import chunk_bytes
from decomposition.inputs import Inputs, apply_with, double, each, rows_in, take
from decomposition.layers import Block, ExactBlock, LinearBlock
from decomposition.linalg import matmul
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
        self._terms = LayerTerms(problem)

    def __call__(
        self, x: Inputs, y: Tensor, root: Root, out: Float[Tensor, "n K width"] | None = None
    ) -> Float[Tensor, "n K width"]:
        """Rows of the chosen blocks side by side, for float64 inputs; written to ``out``."""
        terms = self._terms.gauss_newton(x, y, root)
        n, _, count = terms.columns.shape
        rows = terms.columns.new_empty(n, count, self.size) if out is None else out
        exact = [block for block in self.blocks if isinstance(block, ExactBlock)]
        pulled = self._exact(x, terms.columns, exact) if exact else {}
        start = 0
        for block in self.blocks:
            part = rows[:, :, start : start + block.size]
            if isinstance(block, ExactBlock):
                own = [pulled[name] for name in block.parameters]
                part.copy_(torch.cat([one.reshape(*one.shape[:2], -1) for one in own], 2))
            else:
                _products(part, block, terms.inputs[block.name], terms.roots[block.name])
            start += block.size
        return rows

    def numbers_per_example(self, columns: int) -> int:
        """Numbers that the rows of one example and their making take."""
        return 3 * columns * self.size + self._terms.numbers_per_example(columns)

    def _exact(
        self, x: Inputs, columns: Float[Tensor, "n C K"], blocks: list[ExactBlock]
    ) -> dict[str, Float[Tensor, "n K ..."]]:
        """Rows of exact blocks' parameters by name."""
        model, every = self._terms.model, self._terms.parameters
        chosen = {name: every[name] for block in blocks for name in block.parameters}

        def one(x_n: Inputs, columns_n: Tensor) -> dict[str, Tensor]:
            def outputs(parameters: dict[str, Tensor]) -> Tensor:
                alone = each(x_n, lambda part: part[None])
                return apply_with(model, {**every, **parameters}, alone)[0]

            _, vjp = torch.func.vjp(outputs, chosen)  # pyright: ignore[reportAssignmentType]
            return torch.func.vmap(vjp)(columns_n.mT)[0]

        with differentiable(model):
            return torch.func.vmap(one)(x, columns)


def _products(
    part: Float[Tensor, "n K size"],
    block: LinearBlock,
    a: Float[Tensor, "*G n T width"],
    s: Float[Tensor, "*G n K T d"],
) -> None:
    """Write Σ_t s_t a_tᵀ of every example and column to the rows of a layer."""
    a, split = a.unsqueeze(-3), block.d_out * block.d_in
    shape = (block.d_in, block.d_out) if block.transposed else (block.d_out, block.d_in)
    weight = part[:, :, :split].unflatten(2, shape)
    weight = weight.mT if block.transposed else weight
    if s.ndim == 4 and a.shape[-2] == 1:  # nothing is summed or moved: in its place at once
        torch.mul(s.mT, a[..., : block.d_in], out=weight)
        if block.bias:
            torch.mul(s[..., 0, :], a[..., 0, block.d_in :], out=part[:, :, split:])
        return
    product = s.mT * a if a.shape[-2] == 1 else s.mT @ a  # (*G, n, K, d, width)
    product = product.movedim((-4, -3), (0, 1)).flatten(2, -2)  # (n, K, d_out, width)
    weight.copy_(product[..., : block.d_in])
    if block.bias:
        part[:, :, split:] = product[..., block.d_in]


def gradient_root(loss: Loss) -> Root:
    """∇_f ℓ as the one column: the rows are then per-example gradients."""

    def root(f: Tensor, y: Tensor) -> Tensor:
        return torch.func.grad(lambda g: loss.per_example(g, y).sum())(f)[:, :, None]

    return root


def per_example_gradients(problem: Problem, x: Inputs, y: Tensor) -> Float[Tensor, "N P"]:
    """∇_θ ℓ_n for every example, rows in parameter order (float64)."""
    rows, root = JacobianRows(problem), gradient_root(problem.loss_function)
    one = 8 * rows.numbers_per_example(1)
    chunk = chunk_bytes(y.device, GRADIENT_ROWS * one) // one
    size = (rows_in(x), problem.num_parameters)
    gradients = torch.empty(size, dtype=torch.float64, device=y.device)

    def fill(part: slice) -> None:
        rows(double(take(x, part)), as_double(y[part]), root, gradients[part][:, None])

    for _ in shrinking(fill, rows_in(x), chunk):  # a batch filled in part is filled again
        pass
    return gradients


class Rows(Protocol):
    """R with G = RᵀR, the NC × P matrix of rows S_nᵀ J_n / √N, or some of its columns."""

    @property
    def size(self) -> int:
        """P, or the number of those columns."""
        ...

    @property
    def count(self) -> int:
        """NC."""
        ...

    def forward(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "NC k"]:
        """R v."""
        ...

    def transposed(self, u: Float[Tensor, "NC k"]) -> Float[Tensor, "P k"]:
        """Rᵀ u."""
        ...


class KeptRows:
    """R as a matrix."""

    def __init__(self, matrix: Float[Tensor, "NC P"]) -> None:
        """Keep it, not a copy."""
        self.count, self.size = matrix.shape
        self.matrix = matrix

    def forward(self, v: Tensor) -> Tensor:
        """R v."""
        return matmul(self.matrix, v.contiguous())

    def transposed(self, u: Tensor) -> Tensor:
        """Rᵀ u."""
        return matmul(self.matrix.T, u.contiguous())


class SweptRows:
    """R by one pass through the graph of the examples for every product."""

    def __init__(self, graphs: Graphs, part: slice | None = None) -> None:
        """Restrict R to the parameters ``part``; default all."""
        problem = graphs.problem
        graphs.tensors(part)
        self.size = graphs.size if part is None else part.stop - part.start
        self.count = problem.num_examples * graphs.columns
        self._graphs, self._part = graphs, part

    def forward(self, v: Tensor) -> Tensor:
        """S_nᵀ J_n v / √N for every example."""

        def some(columns: slice) -> Float[Tensor, "NC k"]:
            along = v[:, columns].T.contiguous()

            def batch(graph: Graph, rows: slice) -> Float[Tensor, "nC k"]:
                moved = graph.forward(along, self._part).permute(1, 2, 0)
                return torch.bmm(graph.root.mT, moved).flatten(0, 1)

            return torch.cat(list(self._graphs.over(batch)))

        parts = self._graphs.by_columns(v.shape[1], some)
        return torch.cat(list(parts), 1) / self._graphs.problem.num_examples**0.5

    def transposed(self, u: Tensor) -> Tensor:
        """Σ_n J_nᵀ S_n u_n / √N."""
        out = u.new_empty(self.size, u.shape[1])

        def some(columns: slice) -> None:
            total = u.new_zeros(len(u[0, columns]), self.size)

            def batch(graph: Graph, rows: slice) -> None:
                each = graph.root.shape[2]
                place = slice(rows.start * each, rows.stop * each)
                part = u[place, columns].unflatten(0, (-1, each))
                weighted = torch.bmm(graph.root, part).permute(2, 0, 1)
                total.add_(graph.transposed(weighted, self._part))

            for _ in self._graphs.over(batch):
                pass
            out[:, columns] = total.T

        for _ in self._graphs.by_columns(u.shape[1], some):
            pass
        return out.div_(self._graphs.problem.num_examples**0.5)
