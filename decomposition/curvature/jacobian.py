"""R of a problem, the NC × P matrix of rows S_nᵀ J_n / √N with G = RᵀR: by sweeps, or kept."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.graphs import Graph, Graphs
from decomposition.linalg import matmul


class Rows(Protocol):
    """R, or some of its columns."""

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
        self.count = problem.num_examples * problem.num_outputs
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
                outputs = graph.root.shape[1]
                place = slice(rows.start * outputs, rows.stop * outputs)
                part = u[place, columns].unflatten(0, (-1, outputs))
                weighted = torch.bmm(graph.root, part).permute(2, 0, 1)
                total.add_(graph.transposed(weighted, self._part))

            for _ in self._graphs.over(batch):
                pass
            out[:, columns] = total.T

        for _ in self._graphs.by_columns(u.shape[1], some):
            pass
        return out.div_(self._graphs.problem.num_examples**0.5)
