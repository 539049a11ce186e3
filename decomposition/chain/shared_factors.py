"""What the rungs at one point are made of, each in the form that the plan chose, made once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from decomposition.chain import cross_layer, linearisation
from decomposition.chain.eigenbasis import StandIns, in_kronecker_basis
from decomposition.chain.plan import Plan, plan_chain
from decomposition.curvature import (
    EXACT,
    BlockDiagonal,
    Curvature,
    DenseCurvature,
    Fisher,
    KroneckerBasis,
)
from decomposition.curvature.block_products import block_ggn_product, blocks_agree
from decomposition.curvature.derivatives import check_gradients
from decomposition.curvature.dual import DualCurvature, RowSource, dual_parts, dual_rungs
from decomposition.curvature.factors import (
    Factors,
    Sharing,
    ggn_diagonals,
    hessian_diagonals,
    kronecker_bases,
    kronecker_factors,
)
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import (
    Product,
    block_hessian_product,
    ggn_product,
    hessian_product,
)
from decomposition.errors import DecompositionError
from decomposition.layers import Block, ExactBlock
from decomposition.ledger import spending
from decomposition.problem import Problem

TOLERANCES = {"float64": 1e-6, "float32": 1e-4}
"""Relative residual of iterative solves, by the precision of the products."""


class Parts:
    """Hessian, GGNs, Kronecker bases and eigenvalues at a model's present parameters.

    It lives as long as one chain is built: parameters may change between two of them. Rungs that
    ask for the same basis are given the same object, so that scorers rotate gradients once.

    Args:
        problem: where the curvature is taken.
        plan: which form each rung takes; default what ``plan_chain`` finds for the free memory.
        progress: show a bar over the dual Gram matrices.

    Raises:
        DecompositionError: a gradient is not finite, or the weight decay is to be in curvatures
            that are not formed.
    """

    def __init__(self, problem: Problem, plan: Plan | None = None, progress: bool = False) -> None:
        """Start empty, where gradients are finite."""
        check_gradients(problem)
        self.problem, self.plan = problem, plan or plan_chain(problem)
        check_decay_held(problem, self.plan)
        self._progress = progress
        self._dtype: torch.dtype = getattr(torch, self.plan.products)
        self._hessian: Curvature | None = None
        self._agree: bool | None = None
        self._whole: DenseCurvature | None = None
        self._ggn: dict[Fisher, Curvature] = {}
        self._blocks: dict[tuple[Fisher, bool], Curvature] = {}
        self._sources: dict[Fisher, RowSource] = {}
        self._dual: dict[Fisher, tuple[DualCurvature, BlockDiagonal]] = {}
        self._factors: dict[tuple[Fisher, Sharing], Factors] = {}
        self._bases: dict[tuple[Fisher, bool, Sharing], dict[str, KroneckerBasis]] = {}
        self._exact: dict[Fisher, StandIns] = {}
        self._diagonals: dict[tuple[Fisher, bool, Sharing], dict[str, Tensor]] = {}

    @property
    def hessian(self) -> Curvature:
        """H; where it is not finite, the error names the example."""
        with spending("hessian of the chain"):
            if self._hessian is None:
                self._hessian = self.another_hessian()
            return self._hessian

    def another_hessian(self) -> Curvature:
        """H with a record of solves of its own, if it is solved by iteration."""
        if self.plan.dense:
            return self._dense_hessian()
        product = hessian_product(self.problem, self._dtype)
        return self._iterated(product, "hessian")

    def _dense_hessian(self) -> DenseCurvature:
        with spending("dense hessian"):
            if self._whole is None:
                self._whole = linearisation.hessian(self.problem)
            return self._whole

    def _for_blocks(
        self, matrix: Hashable, blocks: Iterable[Block]
    ) -> AbstractContextManager[None]:
        """Around asking for a matrix of which no more than some diagonal blocks are taken."""
        share = sum(block.size**2 for block in blocks) / self.problem.num_parameters**2
        return spending(("blocks", matrix, share), share=share)

    @property
    def _blocks_agree(self) -> bool:
        with spending("whether blocks agree"):
            if self._agree is None:
                self._agree = blocks_agree(self.problem)
            return self._agree

    def block_hessian(self) -> Curvature:
        """⊕_l H_ll: the blocks of G themselves where they agree, so that all is done once."""
        if self._blocks_agree:
            return self.block_ggn()
        if self.plan.dense:
            with self._for_blocks("hessian", self.problem.blocks):
                return cross_layer.block_diagonal(self._dense_hessian())
        product = block_hessian_product(self.problem, self._dtype)
        blocks = [block.slice for block in self.problem.blocks]
        return self._iterated(product, "block_hessian", blocks=blocks)

    def ggn(self, fisher: Fisher = EXACT) -> Curvature:
        """G, or the matrix of another Fisher."""
        with spending(("ggn", fisher)):
            if fisher not in self._ggn:
                self._ggn[fisher] = self._new_ggn(fisher)
            return self._ggn[fisher]

    def reference(self, name: str) -> Curvature:
        """H or G, as ``hessian`` or ``ggn``: what an approximation is one of."""
        return {"hessian": lambda: self.hessian, "ggn": self.ggn}[name]()

    def _new_ggn(self, fisher: Fisher) -> Curvature:
        way = self._way(fisher)
        if way == "dense":
            return linearisation.ggn(self.problem, fisher)
        if way == "dual":
            return self._dual_rungs(fisher)[0]
        return self._iterated(ggn_product(self.problem, self._dtype, fisher=fisher), "ggn", fisher)

    def block_ggn(self, fisher: Fisher = EXACT, separate_bias: bool = False) -> Curvature:
        """⊕_l G_ll of any Fisher, with weights and biases together or apart."""
        key = (fisher, separate_bias)
        with spending(("block ggn", key)):
            if key not in self._blocks:
                self._blocks[key] = self._new_block_ggn(*key)
            return self._blocks[key]

    def _new_block_ggn(self, fisher: Fisher, separate_bias: bool) -> Curvature:
        way, blocks = self._way(fisher), self.problem.blocks
        if way == "dense":
            with self._for_blocks(fisher, blocks):
                full = self.ggn(fisher)
            assert isinstance(full, DenseCurvature)
            if separate_bias:
                return cross_layer.separate_bias(full, blocks)
            return cross_layer.block_diagonal(full)
        if way == "dual":
            if separate_bias:
                parts = {block.name: cross_layer.parts_of(block) for block in blocks}
                return cross_layer.in_parts(dual_parts(self._rows(fisher), parts))
            return self._dual_rungs(fisher)[1]
        places = [block.slice for block in blocks]
        if separate_bias:
            places = [
                slice(block.start + part.start, block.start + part.stop)
                for block in blocks
                for part in cross_layer.parts_of(block).values()
            ]
        product = block_ggn_product(self.problem, self._dtype, places, fisher)
        return self._iterated(product, "block_ggn", fisher, places)

    def ekfac(
        self, fisher: Fisher = EXACT, separate_bias: bool = False, sharing: Sharing = "expand"
    ) -> BlockDiagonal:
        """⊕_l Q_l diag(Q_lᵀ G_ll Q_l) Q_lᵀ."""
        choices = (fisher, separate_bias, sharing)
        return in_kronecker_basis(
            self.bases(*choices),
            self.diagonals(*choices),
            stand_ins=self.stand_ins(fisher),
            decay=self.problem.curvature_decay,
        )

    def ekfac_hessian(self) -> BlockDiagonal:
        """⊕_l Q_l diag(Q_lᵀ H_ll Q_l) Q_lᵀ: H's own diagonal in the basis of K-FAC.

        Raises:
            DecompositionError: it is too dear, as the plan says.
        """
        if self.plan.no_lattice:
            raise DecompositionError(self.plan.no_lattice)
        if self._blocks_agree:
            return self.ekfac()
        blocks = self._hessian_blocks()
        return in_kronecker_basis(
            self.bases(),
            hessian_diagonals(self.problem, self.bases(), blocks),
            stand_ins=[
                (block, DenseCurvature(_symmetric(blocks[block.name])))
                if blocks[block.name].matrix_free
                else (block, blocks[block.name])
                for block in self.problem.blocks
                if isinstance(block, ExactBlock)
            ],
            decay=self.problem.curvature_decay,
        )

    def _hessian_blocks(self) -> dict[str, Curvature]:
        """H_ll of every layer from which its diagonal or its stand-in is taken."""
        if self.problem.plain:  # its terms tell the diagonal, and it has no stand-ins
            return {}
        if self.plan.dense:
            with self._for_blocks("hessian", self._exact_blocks):
                return dict(self._dense_hessian().diagonal_blocks())
        return {
            block.name: MatrixFreeCurvature(
                hessian_product(self.problem, part=block.slice), name=block.name
            )
            for block in self.problem.blocks
        }

    def bases(
        self, fisher: Fisher = EXACT, separate_bias: bool = False, sharing: Sharing = "expand"
    ) -> dict[str, KroneckerBasis]:
        """Kronecker eigenbases of layers, or of weights and biases."""
        key = (fisher, separate_bias, sharing)
        with spending(("bases", key)):
            if key not in self._bases:
                factors = self._kronecker_factors(fisher, sharing)
                self._bases[key] = kronecker_bases(self.problem, factors, separate_bias)
            return self._bases[key]

    def _kronecker_factors(self, fisher: Fisher, sharing: Sharing) -> Factors:
        key = (fisher, sharing)
        with spending(("factors", key)):
            if key not in self._factors:
                self._factors[key] = kronecker_factors(self.problem, fisher, sharing)
            return self._factors[key]

    def diagonals(
        self, fisher: Fisher = EXACT, separate_bias: bool = False, sharing: Sharing = "expand"
    ) -> dict[str, Tensor]:
        """EK-FAC's eigenvalues in those bases."""
        key = (fisher, separate_bias, sharing)
        with spending(("diagonals", key)):
            if key not in self._diagonals:
                bases = self.bases(fisher, separate_bias, sharing)
                self._diagonals[key] = ggn_diagonals(self.problem, bases, fisher)
            return self._diagonals[key]

    def stand_ins(self, fisher: Fisher = EXACT) -> StandIns:
        """Blocks without a Kronecker form, with their blocks of the GGN.

        Views of the GGN if it is there, so that both are decomposed once; otherwise made alone.
        """
        exact = self._exact_blocks
        if not exact:
            return ()
        if fisher in self._ggn:
            with self._for_blocks(fisher, exact):
                views = self.ggn(fisher).diagonal_blocks()
            if views:
                return [(block, views[block.name]) for block in exact]
        with spending(("exact blocks", fisher)):
            if fisher not in self._exact:
                self._exact[fisher] = linearisation.ggn_blocks(self.problem, exact, fisher)
            return self._exact[fisher]

    @property
    def _exact_blocks(self) -> list[ExactBlock]:
        return [block for block in self.problem.blocks if isinstance(block, ExactBlock)]

    def _way(self, fisher: Fisher) -> str:
        rows = self.problem.num_examples * fisher.rows(self.problem.num_outputs)
        return self.plan.gauss_newton(rows)[0]

    def _dual_rungs(self, fisher: Fisher) -> tuple[DualCurvature, BlockDiagonal]:
        with spending(("dual", fisher)):
            if fisher not in self._dual:
                source = self._rows(fisher)
                self._dual[fisher] = dual_rungs(self.problem, self._progress, fisher, source)
            return self._dual[fisher]

    def _rows(self, fisher: Fisher) -> RowSource:
        if fisher not in self._sources:
            self._sources[fisher] = RowSource(self.problem, fisher)
        return self._sources[fisher]

    def _iterated(
        self,
        product: Product,
        name: str,
        fisher: Fisher | None = None,
        blocks: Sequence[slice] = (),
    ) -> MatrixFreeCurvature:
        """By its products, single solves preconditioned by EK-FAC.

        A Gauss–Newton matrix has no negative eigenvalues and the trace of EK-FAC, with whose
        ``fisher`` it comes.
        """
        known = None if fisher is None else float(self.ekfac(fisher).trace())
        return MatrixFreeCurvature(
            product,
            self.ekfac(),
            definite=fisher is not None,
            tolerance=TOLERANCES[self.plan.products],
            krylov_steps=self.plan.krylov_steps,
            space_bytes=self.plan.space_bytes,
            space_dtype=self._dtype,
            keep=name == "hessian",  # at its optimum others are compared with it
            blocks=blocks,
            trace=known,
            name=name,
        )


def check_decay_held(problem: Problem, plan: Plan | None = None) -> None:
    """Raise DecompositionError if the weight decay is to be in curvatures that are not formed.

    They are formed by a plan that is dense; None: by none.
    """
    if problem.curvature_decay and not (plan is not None and plan.dense):
        raise DecompositionError(
            f"P = {problem.num_parameters:,}: weight_decay_in_curvature is for models whose "
            "matrices fit into memory; raise --memory, or leave it out, where the damping λ takes "
            "its place"
        )


def _symmetric(curvature: Curvature) -> Tensor:
    """The matrix of a small block, from its products."""
    eye = torch.eye(curvature.size, dtype=torch.float64, device=curvature.device)
    matrix = curvature.matvec(eye)
    return 0.5 * (matrix + matrix.T)
