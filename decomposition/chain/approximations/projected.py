"""G in a random subspace: of the whole model, or of every layer's two factors.

``projected``: gradients are mapped to k numbers by a random P × k matrix M, and curvature is taken
there (TRAK: Park et al. 2023, arXiv 2303.14186),

    C⁻¹ = M (Mᵀ G M + λI)⁻¹ Mᵀ.

``projected_layers``: M = ⊕_l M_S,l ⊗ M_A,l with k columns in either factor, so that inputs and
output gradients are projected before they are multiplied, and curvature is taken layer by layer
(LoGra: Choe et al. 2024, arXiv 2405.13954).

Entries are normal, and the columns are then made orthonormal: the subspace is the same, λ means
what it means on G, and with as many columns as rows it is G itself (or its blocks). Directions
outside have no influence. Blocks without a Kronecker form are exact in ``projected_layers``.

Cost: k products with G and P k numbers; or one pass over the terms and k⁴ numbers a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.chain.approximations.method import Method
from decomposition.chain.cost import Cost, Costs, Work
from decomposition.chain.shared_factors import Parts
from decomposition.checks import seed, whole
from decomposition.curvature import (
    BlockDiagonal,
    Curvature,
    Diagonalised,
    EigenpairCurvature,
    KroneckerBasis,
    KroneckerCurvature,
)
from decomposition.curvature.damped import FactoredDamping
from decomposition.curvature.factor_basis import FactorBasis
from decomposition.curvature.fisher import fisher_terms
from decomposition.curvature.low_rank import OUTSIDE
from decomposition.layers import ExactBlock, LinearBlock
from decomposition.linalg import eigh, matmul
from decomposition.problem import Problem

RULES = {"k": whole(1), "seed": seed}


@dataclass(frozen=True)
class Projected(Method):
    """V (Vᵀ G V) Vᵀ with V (P, k) random and orthonormal."""

    name = "projected"
    summary = "the GGN in a random subspace of K dimensions (default 100), as in TRAK"
    form = "low-rank"
    rules = RULES

    k: int = 100
    """Dimensions, at most P."""
    seed: int = 0
    """Seed of the subspace."""

    def memory(self, problem: Problem) -> int:
        """M, its image, and the reflectors."""
        return 8 * problem.num_parameters * 4 * min(self.k, problem.num_parameters)

    def cost(self, costs: Costs) -> Cost:
        """One product with every column."""
        build, product = costs.product("ggn")
        k = min(self.k, costs.size)
        along = Work(multiplications=2 * k * costs.size)
        again = along + Work(multiplications=costs.examples * costs.size)
        made = build + product * k + along * k
        held = self.memory(costs.problem) + costs.held("ggn")
        return Cost(made, Work(cubes=k**3), costs.query + along, again, held)

    def made(self, parts: Parts) -> EigenpairCurvature:
        """From the GGN as the plan has it."""
        problem = parts.problem
        normal = torch.Generator().manual_seed(self.seed)
        shape = problem.num_parameters, min(self.k, problem.num_parameters)
        start = torch.randn(shape, generator=normal, dtype=torch.float64).to(problem.device)
        return in_subspace(parts.ggn().matvec, torch.linalg.qr(start)[0])


def in_subspace(
    matvec: Callable[[Tensor], Tensor], vectors: Float[Tensor, "P k"]
) -> EigenpairCurvature:
    """V (Vᵀ C V) Vᵀ for orthonormal columns V, in its eigenbasis."""
    values, rotation = eigh(_symmetric(matmul(vectors.T, matvec(vectors))))
    return EigenpairCurvature(values, matmul(vectors, rotation), None)


@dataclass(frozen=True)
class ProjectedLayers(Method):
    """⊕_l V_l (V_lᵀ G_ll V_l) V_lᵀ with V_l = V_S ⊗ V_A, k columns each."""

    name = "projected_layers"
    summary = "every layer's block in a random subspace of K inputs × K outputs (8), as in LoGra"
    form = "structured"
    rules = RULES

    k: int = 8
    """Columns of either factor, at most its size; in a grouped convolution, of every group."""
    seed: int = 0
    """Seed of the subspaces."""

    def memory(self, problem: Problem) -> int:
        """The projected blocks with their eigenvectors."""
        blocks = [block for block in problem.blocks if isinstance(block, LinearBlock)]
        return sum(8 * 4 * (b.groups * _columns(b, self.k)) ** 2 for b in blocks)

    def cost(self, costs: Costs) -> Cost:
        """One pass, in which the layers' terms are projected."""
        problem, outputs = costs.problem, costs.problem.num_outputs
        blocks = [block for block in problem.blocks if isinstance(block, LinearBlock)]
        kept = [b.groups * _columns(b, self.k) for b in blocks]
        whole = costs.in_bases(costs.factors(outputs))
        passes = replace(
            whole.build,
            multiplications=costs.examples
            * outputs
            * float(sum(b.size for b in blocks) + sum(m**2 for m in kept)),
        )
        cubes = sum(m**3 for m in kept) + sum(b.size**3 for b in costs.stand_ins)
        return replace(
            whole,
            build=passes,
            decompose=Work(cubes=cubes),
            memory=whole.memory + self.memory(problem),
        )

    def made(self, parts: Parts) -> BlockDiagonal:
        """From the layers' projected terms."""
        problem = parts.problem
        bases, normal = {}, torch.Generator().manual_seed(self.seed)
        for block in problem.blocks:
            if not isinstance(block, ExactBlock):
                bases[block.name] = _random_basis(block, normal, problem.device)
        grams = _projected_blocks(problem, bases, self.k)
        exact = {block.name: curvature for block, curvature in parts.stand_ins()}
        blocks: dict[str, Curvature] = {}
        for block in problem.blocks:
            if block.name in exact:
                blocks[block.name] = exact[block.name]
                continue
            gram = grams[block.name]
            gram.diagonal().add_(problem.curvature_decay)
            blocks[block.name] = ProjectedBlock(bases[block.name], self.k, gram)
        return BlockDiagonal(blocks)


class ProjectedBlock(Diagonalised):
    """V D Vᵀ of one layer, V the first ``k`` columns of both factors of a Kronecker basis.

    Args:
        basis: Q_S ⊗ Q_A, of which V is a part.
        k: columns of either factor.
        gram: D = Vᵀ G_ll V.
    """

    def __init__(self, basis: KroneckerBasis, k: int, gram: Float[Tensor, "m m"]) -> None:
        """Decompose D."""
        block = basis.block
        self._inner, self._rotation = eigh(_symmetric(gram))
        self._whole = KroneckerCurvature(basis, basis.products())
        self.size, self.device = block.size, gram.device
        kept = torch.zeros(block.groups, block.d_out // block.groups, block.width, dtype=torch.bool)
        kept[:, :k, :k] = True
        self._kept = kept.flatten().to(self.device)
        self.notes = () if bool(self._kept.all()) else (OUTSIDE,)

    def basis_values(self) -> Tensor:
        """Eigenvalues of D where V is, 0 elsewhere."""
        return self._inner.new_zeros(self.size).masked_scatter(self._kept, self._inner)

    def factored_damping(self) -> FactoredDamping | None:
        """ν = ∞ outside V."""
        outside = ~self._kept
        return FactoredDamping.leaving_out(outside) if bool(outside.any()) else None

    def to_basis(self, v: Tensor) -> Tensor:
        """Coordinates in Q_S ⊗ Q_A, those in V rotated to the eigenbasis of D."""
        return self._rotated(self._whole.to_basis(v), self._rotation.T)

    def from_basis(self, c: Tensor) -> Tensor:
        """Back from the coordinates of ``to_basis``."""
        return self._whole.from_basis(self._rotated(c, self._rotation))

    def _rotated(self, c: Tensor, rotation: Tensor) -> Tensor:
        out = c.clone()
        out[self._kept] = matmul(rotation, c[self._kept])
        return out


def _columns(block: LinearBlock, k: int) -> int:
    """Dimensions of one group's subspace."""
    return min(k, block.width) * min(k, block.d_out // block.groups)


def _random_basis(
    block: LinearBlock, normal: torch.Generator, device: torch.device
) -> KroneckerBasis:
    """Random orthonormal bases of both factors."""

    def random(size: int) -> FactorBasis:
        shape = (size, size) if block.groups == 1 else (block.groups, size, size)
        drawn = torch.randn(shape, generator=normal, dtype=torch.float64).to(device)
        return FactorBasis.of_vectors(torch.linalg.qr(drawn)[0])

    return KroneckerBasis(block, random(block.width), random(block.d_out // block.groups))


def _projected_blocks(
    problem: Problem, bases: Mapping[str, KroneckerBasis], k: int
) -> dict[str, Float[Tensor, "m m"]]:
    """(1/N) Σ_n Σ_c g gᵀ with g = Σ_t (s_t V_S) ⊗ (a_t V_A) of every group side by side."""
    grams = {}
    for name, basis in bases.items():
        size = basis.block.groups * _columns(basis.block, k)
        grams[name] = torch.zeros(size, size, dtype=torch.float64, device=problem.device)
    for terms in fisher_terms(problem) if bases else ():
        for name, basis in bases.items():
            a = _along(terms.inputs[name], basis.inputs.vectors[..., :k])
            s = _along(terms.roots[name], basis.outputs.vectors[..., :k])
            products = s.mT @ a.unsqueeze(-3)  # (*G, n, K, k, k)
            rows = products.movedim((-4, -3), (0, 1)).flatten(2).flatten(0, 1)
            grams[name] += matmul(rows.T, rows)
    return {name: gram / problem.num_examples for name, gram in grams.items()}


def _along(rows: Float[Tensor, "*G ... d"], vectors: Float[Tensor, "*G d k"]) -> Tensor:
    """Rows times the vectors of their group."""
    if vectors.ndim == 2:
        return rows @ vectors
    flat = rows.flatten(1, -2) @ vectors
    return flat.view(*rows.shape[:-1], vectors.shape[-1])


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.T)
