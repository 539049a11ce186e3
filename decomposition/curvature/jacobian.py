"""R of a problem, the NC × P matrix of rows S_nᵀ J_n / √N with G = RᵀR: by sweeps, or kept."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.evaluation import Evaluation
from decomposition.inputs import Inputs
from decomposition.linalg import matmul
from decomposition.problem import Problem


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
    """R by a forward-mode or a reverse-mode sweep over the examples for every product."""

    def __init__(self, problem: Problem, evaluation: Evaluation, part: slice | None = None) -> None:
        """Restrict R to the parameters ``part``; default all."""
        self._evaluation = evaluation if part is None else evaluation.restricted(part)
        self.size = self._evaluation.size
        self.count = problem.num_examples * problem.num_outputs
        self._problem = problem

    def forward(self, v: Tensor) -> Tensor:
        """S_nᵀ J_n v / √N for every example."""
        parts = self._evaluation.by_columns(v.shape[1], lambda some: self._forward(v[:, some]))
        return torch.cat(list(parts), 1) / self._problem.num_examples**0.5

    def transposed(self, u: Tensor) -> Tensor:
        """Σ_n J_nᵀ S_n u_n / √N."""
        out = u.new_empty(self.size, u.shape[1])

        def some(columns: slice) -> None:
            out[:, columns] = self._transposed(u[:, columns])

        for _ in self._evaluation.by_columns(u.shape[1], some):
            pass
        return out.div_(self._problem.num_examples**0.5)

    def _forward(self, v: Tensor) -> Tensor:
        evaluation = self._evaluation

        def batch(x: Inputs, y: Tensor, rows: slice) -> Float[Tensor, "nC k"]:
            def outputs(p):
                return evaluation.outputs(p, x)

            def along(direction: Tensor) -> Tensor:
                tangent = evaluation.tangent(direction)
                return torch.func.jvp(outputs, (evaluation.chosen,), (tangent,))[1]

            with evaluation.guarded():
                root = evaluation.loss.hessian_sqrt(outputs(evaluation.chosen), y)
                moved = torch.func.vmap(along, 1, 2)(v)  # (n, C, k)
                return torch.bmm(root.mT, moved).flatten(0, 1)

        return torch.cat(list(evaluation.over(self._problem.rows("train"), v.shape[1], batch)))

    def _transposed(self, u: Tensor) -> Tensor:
        evaluation = self._evaluation
        out = u.new_zeros(evaluation.size, u.shape[1])

        def batch(x: Inputs, y: Tensor, rows: slice) -> None:
            with evaluation.guarded():
                f, pull = torch.func.vjp(lambda p: evaluation.outputs(p, x), evaluation.chosen)  # pyright: ignore[reportAssignmentType]
                part = u[rows.start * f[0].numel() :][: f.numel()].reshape(*f.shape, u.shape[1])
                weighted = torch.bmm(evaluation.loss.hessian_sqrt(f, y), part)
                out.add_(torch.func.vmap(lambda c: evaluation.flat(pull(c)[0]), 2, 1)(weighted))

        for _ in evaluation.over(self._problem.rows("train"), u.shape[1], batch):
            pass
        return out
