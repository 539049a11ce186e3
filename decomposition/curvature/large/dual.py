"""G, and its diagonal blocks, exactly through the dual Gram matrix when N·C is the smaller side.

With the NC × P matrix R of rows S_nᵀ J_n / √N, G = RᵀR, and by Woodbury's identity

    (G + λI)⁻¹ v = (v − Rᵀ (K + λI)⁻¹ R v) / λ,    K = R Rᵀ (NC × NC).

K is a sum over blocks, made of one block's rows at a time; R v and Rᵀ u are a forward-mode and a
reverse-mode sweep, so that nothing of P × NC numbers is ever held. One eigendecomposition of K
serves every λ. The difference loses digits when λ is small against ‖K‖: one step of iterative
refinement follows, and the residual is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature.base import Curvature
from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.fisher import jacobian_rows
from decomposition.curvature.large.evaluation import Evaluation
from decomposition.damping import DampingError, NegativeCurvature
from decomposition.errors import DecompositionError
from decomposition.linalg import eigh, matmul
from decomposition.problem import Problem

RESIDUAL = 1e-7
"""Largest relative residual that a solve may leave."""
BAR_DELAY = 5.0


class Rows:
    """R of a problem by sweeps: R v (NC, k) and Rᵀ u (P, k)."""

    def __init__(self, problem: Problem) -> None:
        """Prepare a float64 copy of the model."""
        self.size, self.count = problem.parameters, problem.examples * problem.outputs
        self._problem, self._evaluation = problem, Evaluation(problem)

    def forward(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "NC k"]:
        """S_nᵀ J_n v / √N for every example."""
        evaluation, found = self._evaluation, []
        for x, y in evaluation.batches(self._problem.train, v.shape[1]):

            def outputs(p, x=x):
                return evaluation.outputs(p, x)

            def along(direction: Tensor, outputs=outputs) -> Tensor:
                tangent = evaluation.tangent(direction)
                return torch.func.jvp(outputs, (evaluation.chosen,), (tangent,))[1]

            with evaluation.guarded():
                root = evaluation.loss.hessian_sqrt(outputs(evaluation.chosen), y)
                moved = torch.func.vmap(along, 1, 2)(v)  # (n, C, k)
                found.append(torch.bmm(root.mT, moved).flatten(0, 1))
        return torch.cat(found) / self._problem.examples**0.5

    def transposed(self, u: Float[Tensor, "NC k"]) -> Float[Tensor, "P k"]:
        """Σ_n J_nᵀ S_n u_n / √N."""
        evaluation, first = self._evaluation, 0
        out = u.new_zeros(self.size, u.shape[1])
        for x, y in evaluation.batches(self._problem.train, u.shape[1]):
            with evaluation.guarded():
                f, pull = torch.func.vjp(lambda p, x=x: evaluation.outputs(p, x), evaluation.chosen)  # pyright: ignore[reportAssignmentType]
                part = u[first : first + f.numel()].view(*f.shape, u.shape[1])
                weighted = torch.bmm(evaluation.loss.hessian_sqrt(f, y), part)
                out += torch.func.vmap(lambda c, pull=pull: evaluation.flat(pull(c)[0]), 2, 1)(
                    weighted
                )
            first += f.numel()
        return out / self._problem.examples**0.5


@dataclass(frozen=True)
class Gram:
    """Eigendecomposition of K."""

    values: Float[Tensor, " NC"]
    """Ascending, not negative."""
    vectors: Float[Tensor, "NC NC"]

    @staticmethod
    def of(matrix: Float[Tensor, "NC NC"]) -> Gram:
        """Decompose a Gram matrix."""
        values, vectors = eigh(matrix)
        return Gram(values.clamp_min(0.0), vectors)


class DualCurvature(Curvature):
    """RᵀR, or its diagonal block of the parameters ``part``."""

    def __init__(self, rows: Rows, gram: Gram, part: slice | None = None) -> None:
        """Keep the parts."""
        self._rows, self._gram = rows, gram
        self._part = part or slice(0, rows.size)
        self.size = self._part.stop - self._part.start
        self.device = gram.values.device
        self.notes = ()

    def eigenvalues(self) -> Tensor:
        """Those of K, and zeros for the directions that no example moves."""
        values = self._gram.values
        zeros = values.new_zeros(max(0, self.size - len(values)))
        return torch.cat([zeros, values[max(0, len(values) - self.size) :]])

    def trace(self) -> float:
        """tr K."""
        return float(self._gram.values.sum())

    def frobenius_norm(self) -> float:
        """‖K‖_F."""
        return float(torch.linalg.vector_norm(self._gram.values))

    def _matvec(self, v: Tensor) -> Tensor:
        return self._back(self._forward(v))

    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: str | NegativeCurvature
    ) -> Float[Tensor, "P k"]:
        if damping <= 0:
            raise DampingError(
                "a GGN with more parameters than N·C rows is singular: use damping > 0"
            )
        x = self._woodbury(v, damping)
        rest = v - self._matvec(x) - damping * x
        x = x + self._woodbury(rest, damping)
        rest = v - self._matvec(x) - damping * x
        norms = torch.linalg.vector_norm(v, dim=0).clamp_min(torch.finfo(v.dtype).tiny)
        worst = float((torch.linalg.vector_norm(rest, dim=0) / norms).max())
        if not worst <= RESIDUAL:
            raise DampingError(
                f"damping {damping:.3g} is too small for the dual solve: the largest eigenvalue "
                f"is {float(self._gram.values[-1]):.3g} and the residual {worst:.3g}; raise it"
            )
        return x

    def _woodbury(self, v: Tensor, damping: float) -> Tensor:
        q = self._gram.vectors
        inner = matmul(q.T, self._forward(v)) / (self._gram.values + damping)[:, None]
        return (v - self._back(matmul(q, inner))) / damping

    def _forward(self, v: Tensor) -> Tensor:
        if self.size == self._rows.size:
            return self._rows.forward(v)
        whole = v.new_zeros(self._rows.size, v.shape[1])
        whole[self._part] = v
        return self._rows.forward(whole)

    def _back(self, u: Tensor) -> Tensor:
        return self._rows.transposed(u)[self._part]


class Blockwise(Curvature):
    """⊕_l C_l of blocks that need not have a basis."""

    def __init__(self, blocks: Mapping[str, Curvature]) -> None:
        """Lay the blocks out one after the other."""
        self._blocks = dict(blocks)
        self.size = sum(block.size for block in self._blocks.values())
        self.device = next(iter(self._blocks.values())).device
        self.notes = tuple(note for block in self._blocks.values() for note in block.notes)

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """The blocks themselves."""
        return self._blocks

    def eigenvalues(self) -> Tensor:
        """Of all blocks, ascending."""
        return torch.cat([block.eigenvalues() for block in self._blocks.values()]).sort().values

    def trace(self) -> float:
        """Σ_l tr C_l."""
        return sum(block.trace() for block in self._blocks.values())

    def frobenius_norm(self) -> float:
        """√Σ_l ‖C_l‖²_F."""
        return sum(block.frobenius_norm() ** 2 for block in self._blocks.values()) ** 0.5

    def _matvec(self, v: Tensor) -> Tensor:
        return self._each(v, lambda block, part: block.matvec(part))

    def _solve(self, v: Tensor, damping: float, negative: str | NegativeCurvature) -> Tensor:
        return self._each(v, lambda block, part: block.solve(part, damping, negative))

    def _each(self, v: Tensor, apply) -> Tensor:
        found, start = [], 0
        for block in self._blocks.values():
            found.append(apply(block, v[start : start + block.size]))
            start += block.size
        return torch.cat(found)


def dual_rungs(problem: Problem, progress: bool = False) -> tuple[DualCurvature, Blockwise]:
    """G and ⊕_l G_ll from one pass over the rows, block by block.

    Blocks with fewer parameters than N·C are held as their own matrices.

    Raises:
        DecompositionError: N·C exceeds P, so that G itself is the smaller matrix.
    """
    rows = Rows(problem)
    if rows.count > problem.parameters:
        raise DecompositionError(
            f"the dual Gram matrix has side N·C = {rows.count:,}, more than P = "
            f"{problem.parameters:,}: use the GGN itself"
        )
    total = torch.zeros(rows.count, rows.count, dtype=torch.float64, device=problem.device)
    blocks: dict[str, Curvature] = {}
    with tqdm(
        problem.blocks,
        desc="dual Gram matrices",
        unit="block",
        delay=BAR_DELAY,
        disable=None if progress else True,
    ) as bar:
        for block in bar:
            parts = [part.flatten(0, 1) for part in jacobian_rows(problem, blocks=[block])]
            matrix = torch.cat(parts) / problem.examples**0.5
            gram = matmul(matrix, matrix.T)
            total += gram
            if block.size <= rows.count:
                blocks[block.name] = DenseCurvature(matmul(matrix.T, matrix))
            else:
                blocks[block.name] = DualCurvature(rows, Gram.of(gram), block.slice)
    return DualCurvature(rows, Gram.of(total)), Blockwise(blocks)
