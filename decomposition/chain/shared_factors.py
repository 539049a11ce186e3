"""What the rungs at one point are made of, each part made at most once."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from decomposition.chain import linearisation, reference
from decomposition.chain.eigenbasis import StandIns
from decomposition.chain.plan import Plan
from decomposition.curvature import EXACT, Curvature, DenseCurvature, Fisher, KroneckerBasis
from decomposition.curvature.derivatives import check_gradients, check_second_derivatives
from decomposition.curvature.factors import (
    Factors,
    Sharing,
    ggn_diagonals,
    kronecker_bases,
    kronecker_factors,
)
from decomposition.errors import NonFiniteError
from decomposition.layers import ExactBlock
from decomposition.problem import Problem


class Parts:
    """Hessian, GGNs, Kronecker bases and eigenvalues at a model's present parameters.

    It lives as long as one chain is built: parameters may change between two of them. Rungs that
    ask for the same basis are given the same object, so that scorers rotate gradients once.
    """

    def __init__(self, problem: Problem, plan: Plan | None = None) -> None:
        """Start empty, where gradients are finite.

        Args:
            problem: at whose parameters.
            plan: the forms of the chain's rungs; None: they are chosen when they are asked for.
        """
        check_gradients(problem)
        self.problem, self.plan = problem, plan
        self.chain: dict[str, Curvature] = {}
        """The rungs made so far, in the plan's forms, for those that are made of them."""
        self._ggn: dict[Fisher, DenseCurvature] = {}
        self._factors: dict[tuple[Fisher, Sharing], Factors] = {}
        self._bases: dict[tuple[Fisher, bool, Sharing], dict[str, KroneckerBasis]] = {}
        self._exact: dict[Fisher, StandIns] = {}
        self._diagonals: dict[tuple[Fisher, bool, Sharing], dict[str, Tensor]] = {}

    @cached_property
    def hessian(self) -> DenseCurvature:
        """H; where it is not finite, the error names the example."""
        try:
            return reference.hessian(self.problem)
        except NonFiniteError:
            check_second_derivatives(self.problem)
            raise

    def ggn(self, fisher: Fisher = EXACT) -> DenseCurvature:
        """G, or the matrix of another Fisher."""
        if fisher not in self._ggn:
            self._ggn[fisher] = linearisation.ggn(self.problem, fisher)
        return self._ggn[fisher]

    def bases(
        self, fisher: Fisher = EXACT, separate_bias: bool = False, sharing: Sharing = "expand"
    ) -> dict[str, KroneckerBasis]:
        """Kronecker eigenbases of layers, or of weights and biases."""
        key = (fisher, separate_bias, sharing)
        if key not in self._bases:
            if (fisher, sharing) not in self._factors:
                factors = kronecker_factors(self.problem, fisher, sharing)
                self._factors[fisher, sharing] = factors
            factors = self._factors[fisher, sharing]
            self._bases[key] = kronecker_bases(self.problem, factors, separate_bias)
        return self._bases[key]

    def diagonals(
        self, fisher: Fisher = EXACT, separate_bias: bool = False, sharing: Sharing = "expand"
    ) -> dict[str, Tensor]:
        """EK-FAC's eigenvalues in those bases."""
        key = (fisher, separate_bias, sharing)
        if key not in self._diagonals:
            bases = self.bases(fisher, separate_bias, sharing)
            self._diagonals[key] = ggn_diagonals(self.problem, bases, fisher)
        return self._diagonals[key]

    def stand_ins(self, fisher: Fisher = EXACT) -> StandIns:
        """Blocks without a Kronecker form, with their blocks of the GGN.

        Views of the GGN if it is there, so that both are decomposed once; otherwise made alone.
        """
        exact = [block for block in self.problem.blocks if isinstance(block, ExactBlock)]
        if not exact:
            return ()
        if fisher in self._ggn:
            views = self._ggn[fisher].diagonal_blocks()
            return [(block, views[block.name]) for block in exact]
        if fisher not in self._exact:
            self._exact[fisher] = linearisation.blocks(self.problem, exact, fisher)
        return self._exact[fisher]

    def hessian_stand_ins(self) -> StandIns:
        """The same with their blocks of H."""
        exact = [block for block in self.problem.blocks if isinstance(block, ExactBlock)]
        views = self.hessian.diagonal_blocks()
        return [(block, views[block.name]) for block in exact]
