"""Rungs beyond the chain, each the chain's own but for the choices named in it.

Every one is a function from a Problem to a Curvature, for ``extra=`` of ``build_chain`` and
``run``; built beside a chain it shares what the chain is made of, and takes the form that the plan
has for its kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from decomposition.chain.cost import Cost, Costs
from decomposition.chain.eigenvalues import kfac
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import (
    EXACT,
    BlockDiagonal,
    Curvature,
    Empirical,
    Fisher,
    Sampled,
    UnderPolicy,
)
from decomposition.curvature.factors import Sharing
from decomposition.damping import NegativeCurvature, Truncate, as_policy
from decomposition.problem import Problem


class Rung(ABC):
    """An approximation that can be built from parts that other rungs are made of too."""

    @abstractmethod
    def build(self, parts: Parts) -> Curvature:
        """The curvature, from these parts."""

    def cost(self, costs: Costs) -> Cost | None:
        """What it takes by itself; None where that is not counted."""
        return None

    def __call__(self, problem: Problem) -> Curvature:
        """The curvature at the model's present parameters, by itself."""
        return self.build(Parts(problem))


@dataclass(frozen=True)
class HessianRung(Rung):
    """H under a policy of its own for negative eigenvalues.

    Raises:
        DampingError: unknown policy.
    """

    policy: str | NegativeCurvature = field(default_factory=Truncate)
    """Name or instance (see decomposition.damping)."""

    def __post_init__(self) -> None:
        """Check the policy."""
        as_policy(self.policy)

    def build(self, parts: Parts) -> UnderPolicy:
        """The chain's H, decomposed once for both where it is a matrix."""
        return UnderPolicy(parts.another_hessian(), self.policy)

    def cost(self, costs: Costs) -> Cost:
        """That of H."""
        return costs.hessian()


@dataclass(frozen=True)
class BlockGGN(Rung):
    """⊕_l G_ll of any Fisher, with weights and biases together or apart."""

    fisher: Fisher = EXACT
    separate_bias: bool = False

    def build(self, parts: Parts) -> Curvature:
        """Views of the Fisher's matrix, Gram matrices of its rows, or products."""
        return parts.block_ggn(self.fisher, self.separate_bias)

    def cost(self, costs: Costs) -> Cost:
        """With the columns of this Fisher."""
        return costs.block_ggn(self.fisher.rows(costs.problem.num_outputs))


@dataclass(frozen=True)
class FullGGN(Rung):
    """The whole matrix (1/N) Σ J_nᵀ R_n R_nᵀ J_n of any Fisher."""

    fisher: Fisher = EXACT

    def build(self, parts: Parts) -> Curvature:
        """Dense, by its Gram matrix, or by its products."""
        return parts.ggn(self.fisher)

    def cost(self, costs: Costs) -> Cost:
        """With the columns of this Fisher."""
        return costs.ggn(self.fisher.rows(costs.problem.num_outputs))


@dataclass(frozen=True)
class EKFAC(Rung):
    """Kronecker eigenbases of any Fisher with that Fisher's own curvature along them."""

    fisher: Fisher = EXACT
    separate_bias: bool = False
    sharing: Sharing = "expand"
    """How positions that share a weight count: expand or reduce."""

    def build(self, parts: Parts) -> BlockDiagonal:
        """In the same bases as the K-FAC of these choices."""
        return parts.ekfac(self.fisher, self.separate_bias, self.sharing)

    def cost(self, costs: Costs) -> Cost:
        """With the columns of this Fisher."""
        return costs.ekfac(self.fisher.rows(costs.problem.num_outputs))


@dataclass(frozen=True)
class KFAC(Rung):
    """A ⊗ S of any Fisher; with ``factored_damping`` the factors are damped, not their product."""

    fisher: Fisher = EXACT
    separate_bias: bool = False
    factored_damping: bool = False
    sharing: Sharing = "expand"
    """How positions that share a weight count: expand or reduce."""

    def build(self, parts: Parts) -> BlockDiagonal:
        """Eigenvalues are products, whatever the damping."""
        bases = parts.bases(self.fisher, self.separate_bias, self.sharing)
        decay = parts.problem.curvature_decay
        return kfac(bases, self.factored_damping, parts.stand_ins(self.fisher), decay)

    def cost(self, costs: Costs) -> Cost:
        """With the columns of this Fisher."""
        return costs.kfac(self.fisher.rows(costs.problem.num_outputs))


def sampled_kfac(samples: int = 1, seed: int = 0) -> KFAC:
    """K-FAC from Monte-Carlo labels, ``samples`` per example (rung ``kfac_mc1`` with one)."""
    return KFAC(Sampled(samples, seed))


def sampled_ekfac(samples: int = 1, seed: int = 0) -> EKFAC:
    """EK-FAC of the same sampled Fisher, basis and eigenvalues (rung ``ekfac_mc1`` with one)."""
    return EKFAC(Sampled(samples, seed))


def sampled_block_ggn(samples: int = 1, seed: int = 0) -> BlockGGN:
    """Diagonal blocks of the sampled Fisher (rung ``block_ggn_mc1`` with one label)."""
    return BlockGGN(Sampled(samples, seed))


def fisher_rungs(seed: int = 0) -> dict[str, Rung]:
    """One-sample and empirical Fishers in every structure of the chain, for ``extra=``."""
    made = {"ggn": FullGGN, "block_ggn": BlockGGN, "ekfac": EKFAC, "kfac": KFAC}
    kinds: dict[str, Fisher] = {"mc1": Sampled(1, seed), "empirical": Empirical()}
    return {f"{rung}_{kind}": made[rung](kinds[kind]) for kind in kinds for rung in made}
