"""What a run computes: every choice that is not part of the problem itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from decomposition.damping import as_policy
from decomposition.device import device_named
from decomposition.errors import DecompositionError
from decomposition.retraining.plan import BankPlan
from decomposition.targets.names import Target, check_target

LEAST_EXAMPLES = 4
"""Two folds of two: fewer examples cannot be ranked where their damping was not chosen."""


@dataclass(frozen=True)
class Settings:
    """Choices of one run; the defaults are the study that the README shows.

    Raises:
        DecompositionError: a value is outside its range; the message names it.
    """

    target: Target = "loss"
    """What the scores predict. loss, margin: that output of models retrained on random subsets.
    leave_one_out: the loss of models retrained without one example. pbrf: the loss after the
    proximal Bregman response to that removal, which asks of a curvature no more than influence
    functions promise (see docs/targets.md)."""
    masks: int = 1000
    """Number of random subsets on which the model is retrained."""
    alpha: float = 0.5
    """Fraction of the training examples that each subset keeps, in (0, 1)."""
    repeats: int = 1
    """Retrainings of each subset, with different training randomness."""
    randomness: Literal["shared", "independent"] = "shared"
    """shared: retrained models start where the base model started and follow its order of
    examples: what removing data does to this model. independent: fresh initialisation and order
    every time: what it does to a model of this kind (then use e.g. --masks 100 --repeats 10)."""
    base_seeds: int = 1
    """Number of base models (initialisation and order of examples), each decomposed; with several,
    the intervals also cover the choice of base model."""
    second_order_masks: int = 100
    """With one repeat: subsets retrained once more in another order, for the noise ceiling."""
    leave_one_out_examples: int = 200
    """Targets leave_one_out and pbrf: how many training examples are removed, one at a time,
    chosen at random; all of them if there are no more. Takes the place of masks and alpha."""
    pbrf_damping: float = 1.0
    """Target pbrf: its proximal λ, as a multiple of trace(GGN) / P."""
    retrain_hours: float = 2.0
    """Models whose matrices do not fit into memory: the longest that retraining, or the proximal
    responses of target pbrf, may take by what a few timed steps predict. Beyond it nothing is held
    against the scores, and a note says what it would take. Small models are always retrained."""
    krylov_steps: int = 100
    """Models whose matrices do not fit into memory: most products with H for each query, which all
    dampings share. More reach smaller dampings, and take as many vectors of memory."""
    attribution: bool = True
    """Retrain and score attribution; without it only the spectra and their errors."""
    lattice: bool = True
    """Also build block-diagonal H and H in the Kronecker eigenbasis, for every order of steps."""
    matrix_norms: bool = True
    """Spectral and nuclear norms of the differences (a quarter of the curvature time)."""
    negative: Literal["absolute", "signed", "clip", "shift"] = "absolute"
    """What an inverse does with negative eigenvalues μ: absolute |μ|, signed μ, clip max(μ, 0),
    shift μ − μ_min."""
    damping_low: float = 1e-4
    """Smallest damping, as a multiple of trace(GGN) / P."""
    damping_high: float = 1e4
    """Largest damping, as a multiple of trace(GGN) / P."""
    damping_points: int = 13
    """Number of dampings, log-spaced."""
    resamples: int = 2000
    """Bootstrap resamples behind every interval."""
    level: float = 0.95
    """Coverage that the intervals aim at."""
    seed: int = 0
    """Seed of masks, bootstrap and stochastic estimates (the problem has its own)."""
    device: str = "cpu"
    """Where training and curvature run: cpu, cuda or cuda:N. Results are kept on the CPU."""

    def __post_init__(self) -> None:
        """Check every value once."""
        check_target(self.target)
        if self.attribution:
            _ = self.plan
        as_policy(self.negative)
        device_named(self.device)
        if self.krylov_steps < 1:
            raise DecompositionError(f"krylov_steps must be >= 1, got {self.krylov_steps}")
        if self.leave_one_out_examples < LEAST_EXAMPLES:
            raise DecompositionError(
                f"leave_one_out_examples must be >= {LEAST_EXAMPLES}, got "
                f"{self.leave_one_out_examples}"
            )
        if not 0 < self.pbrf_damping < math.inf:
            raise DecompositionError(
                f"pbrf_damping must be positive and finite, got {self.pbrf_damping}"
            )
        if not 0 <= self.retrain_hours < math.inf:
            raise DecompositionError(
                f"retrain_hours must be >= 0 and finite, got {self.retrain_hours}"
            )
        if not (0 < self.damping_low < self.damping_high < math.inf):
            raise DecompositionError(
                f"dampings need 0 < low < high, got damping_low={self.damping_low}, "
                f"damping_high={self.damping_high}"
            )
        if self.damping_points < 3:
            raise DecompositionError(f"damping_points must be >= 3, got {self.damping_points}")
        if self.resamples < 100:
            raise DecompositionError(f"resamples must be >= 100, got {self.resamples}")
        if not 0 < self.level < 1:
            raise DecompositionError(f"level must lie in (0, 1), got {self.level}")
        if self.base_seeds < 1:
            raise DecompositionError(f"base_seeds must be >= 1, got {self.base_seeds}")
        if self.seed < 0:
            raise DecompositionError(f"seed must be >= 0, got {self.seed}")

    @property
    def plan(self) -> BankPlan:
        """The retraining part of targets loss and margin.

        Raises:
            ProblemError: alpha outside (0, 1), fewer than two masks, no repeats.
        """
        return BankPlan(
            alpha=self.alpha,
            masks=self.masks,
            repeats=self.repeats,
            randomness=self.randomness,
            seed=self.seed,
            second_order_masks=self.second_order_masks,
        )

    def multipliers(self) -> Float[np.ndarray, " D"]:
        """The damping grid as multiples of trace / P."""
        return np.geomspace(self.damping_low, self.damping_high, self.damping_points)
