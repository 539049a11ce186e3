"""What scores a rung: its influence scores and predicted effects at any damping.

A rung is scored in its eigenbasis (``spectral``), by its rows (``row_space``), in Krylov spaces of
its queries (``krylov``) or by its solver (``solving``); ``scorers`` picks the cheapest. Scores are
kept in float32 (relative rounding 6e-8, far below what a rank correlation over 1,000 masks can
see); ``influence_scores`` itself computes in float64.

Shapes: P parameters, N training examples, Q queries, M masks, D dampings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomposition.curvature.damped import DampedSpectrum
from decomposition.curvature.operator import NotAvailableError
from decomposition.damping import (
    Added,
    NegativeCurvature,
    as_policy,
    damping_for_effective_dimension,
    effective_dimension,
)
from decomposition.linalg import to_numpy
from decomposition.scores.lds import summed_effects

Treatment = tuple[float, str]
"""λ and the name of a policy for negative eigenvalues."""
Subset = np.ndarray | slice
"""Indices of a basis, or of parameters."""
OVERFLOW = "the scores overflow single precision"


def treatment(damping: float, negative: str | NegativeCurvature) -> Treatment:
    """The key of a damping under a policy."""
    return float(damping), as_policy(negative).name


@dataclass(frozen=True)
class Eigenvalues:
    """What damping protocols ask of a spectrum, exact or by quadrature."""

    values: Float[Tensor, " m"]
    """μ in the order of a basis, or the nodes of a quadrature."""
    magnitude: float
    """Σ |μ| over all eigenvalues."""
    counts: Float[Tensor, " m"] | None = None
    """How many eigenvalues each node stands for; None: one."""
    added: Added | None = None
    """What damping adds besides λ, where it does."""

    def effective_dimension(self, damping: float) -> float:
        """Σ μ₊ / (μ₊ + λ)."""
        return effective_dimension(self.values, damping, self.added, self.counts)

    def damping_at(self, dimension: float) -> float:
        """The λ of an effective dimension.

        Raises:
            DampingError: no λ has it.
        """
        return damping_for_effective_dimension(self.values, dimension, self.added, self.counts)


class Scorer(ABC):
    """Influence scores of one rung, float32."""

    spectrum: DampedSpectrum | None = None
    """Eigenvalues in basis order and how λ enters their inverse, where they are known."""
    damping_free: bool = False
    """Whether damping changes the scores by no more than a factor, which no rank sees."""
    refinable: bool = True
    """Whether a damping between those of the grid costs little."""
    unsolved: Mapping[Treatment, str] = MappingProxyType({})
    """Treatment → why there is no solution, where there is none and all scores are NaN."""
    told: Eigenvalues | None = None
    """What is known of the spectrum from elsewhere."""

    @property
    def mu(self) -> Float[torch.Tensor, " P"] | None:
        """Eigenvalues in basis order, where they are known exactly."""
        return None if self.spectrum is None else self.spectrum.values

    @property
    def eigenvalues(self) -> Eigenvalues | None:
        """What is known of the spectrum; None of a solver alone."""
        if self.told is not None or self.spectrum is None:
            return self.told
        mu = self.spectrum.values
        return Eigenvalues(mu, float(mu.abs().sum()), None, self.spectrum.added)

    @abstractmethod
    def scores(
        self, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Float[np.ndarray, "Q N"]:
        """τ at damping λ; NaN where the rung cannot be solved."""

    def nearest(self, damping: float, negative: str | NegativeCurvature) -> float:
        """The damping next to this one (by ratio) at which scores are to be had for nothing."""
        return damping

    def check(self, damping: float, negative: str | NegativeCurvature) -> None:
        """Raise DampingError if the damped rung is singular (where its eigenvalues are known)."""
        if self.spectrum is not None:
            self.spectrum.inverse(damping, negative)

    def prepare(  # noqa: B027  (nothing to do unless solves are shared)
        self,
        masks: Bool[np.ndarray, "M N"] | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """Do together what scores at several dampings share.

        Args:
            masks: of the effects that will be asked for; None: of none.
            dampings: all that effects will be asked for.
            keep: those of them at which scores will be asked for too.
            negative: policy for negative eigenvalues.
            progress: show a bar.
        """

    def predicted_effects(
        self,
        masks: Bool[np.ndarray, "M N"],
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "M Q"]:
        """−Σ_{i ∈ S_j} τ[q, i]: predicted loss on q after training on S_j, up to a constant.

        NaN where the rung cannot be solved.
        """
        return summed_effects(masks, self.scores(damping, negative))

    def partial_effects(
        self,
        masks: Bool[np.ndarray, "M N"],
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "K M Q"]:
        """Predicted effects through each part of the rung alone; over a partition they add up.

        A score is a sum over eigenvectors, so a layer of a block-diagonal rung, or a band of its
        spectrum, has a part of its own in every prediction. Subsets are indices of the basis; of a
        rung without one, the parameters of layers that it does not couple.

        Raises:
            NotAvailableError: these scores have no parts.
        """
        raise NotAvailableError(f"{type(self).__name__}: scores without parts")


class FixedScorer(Scorer):
    """Scores that no damping changes: the baselines."""

    damping_free = True

    def __init__(self, scores: Float[Tensor, "Q N"]) -> None:
        """Keep the scores, in single precision."""
        self._scores = single(scores)

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """The same whatever the damping."""
        return self._scores


def single(tensor: Tensor) -> Float[np.ndarray, ...]:
    """The numbers in single precision."""
    return to_numpy(tensor.to(torch.float32))
