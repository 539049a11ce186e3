"""What a run computes: every choice that is not part of the problem itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from decomposition.chain.approximations import approximations
from decomposition.chain.plan import Precision
from decomposition.checks import Rule, check_fields, flag, number, one_of, optional, readable, whole
from decomposition.curvature.inversion import as_inversion
from decomposition.damping import POLICIES
from decomposition.device import named_device
from decomposition.errors import DecompositionError
from decomposition.retraining.distinct import LEAST
from decomposition.retraining.plan import RULES as PLAN_RULES
from decomposition.retraining.plan import BankPlan
from decomposition.scores.rules import damping_rules
from decomposition.targets.functions import Target

RULES: dict[str, Rule] = {
    "target": one_of(*get_args(Target)),
    **PLAN_RULES,
    "base_seeds": whole(1),
    "leave_one_out_examples": whole(LEAST),
    "pbrf_damping": number(0, above=True),
    "retrain_hours": number(0),
    "krylov_steps": whole(1),
    "attribution": flag,
    "lattice": flag,
    "also": readable(approximations),
    "leading": optional(whole(1)),
    "matrix_norms": flag,
    "detail": flag,
    "negative": one_of(*POLICIES),
    "inversion": readable(as_inversion),
    "rules": readable(damping_rules),
    "damping_low": number(0, above=True),
    "damping_high": number(0, above=True),
    "damping_points": whole(3, bits=12),
    "resamples": whole(100, bits=20),
    "level": number(0, 1, above=True),
    "device": named_device,
    "memory": optional(number(0, above=True)),
    "products": one_of(*get_args(Precision)),
}
"""What each field of Settings may be."""


@dataclass(frozen=True)
class Settings:
    """Choices of one run; the defaults are the study that the README shows.

    Raises:
        DecompositionError: a value of the wrong type or outside its range; the message names it.
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
    """Models whose matrices do not fit into memory: most dimensions, for each query, of the Krylov
    space that all queries and dampings share, and products with H. As many are taken as a quarter
    of --memory holds; more reach smaller dampings."""
    attribution: bool = True
    """Retrain and score attribution; without it only the spectra and their errors."""
    lattice: bool = True
    """Also build block-diagonal H and H in the Kronecker eigenbasis, for every order of steps."""
    also: str = ""
    """Other approximations beside the chain, separated by commas: kpsvd,low_rank:100,cg:20:hessian.
    diagonal: the diagonal of the GGN;
    kfac_trace: K-FAC with every layer's trace matched to its exact block's;
    block_basis_kfac_values: the block GGN's eigenvectors with K-FAC's sorted eigenvalues;
    kfac_basis_block_values: K-FAC's eigenvectors with the block GGN's sorted eigenvalues;
    kpsvd: the Kronecker product nearest to each layer's block of the GGN;
    low_rank:K: the K leading eigenpairs of the GGN (100), the rest at its mean, or :drop;
    projected:K: the GGN in a random subspace of K dimensions (100), as in TRAK;
    projected_layers:K: every layer's block in a random subspace of K x K (8), as in LoGra;
    datainf: the mean of per-example damped inverses, layer by layer;
    neumann:K: K steps (100) of the Neumann series (LiSSA), on the GGN or :hessian, preconditioned
    :ekfac (ASTRA);
    cg:K: K steps (20) of conjugate gradients, on the GGN or :hessian, preconditioned :ekfac."""
    leading: int | None = None
    """k of the overlaps of the k leading eigenvectors; default the number of outputs."""
    matrix_norms: bool = True
    """Spectral and nuclear norms of the differences."""
    detail: bool = True
    """Curves with intervals, agreement, policies, where the loss lives, spectra, the bank and
    examples; without it no more than levels, shares and the errors that cost little."""
    negative: Literal["absolute", "signed", "clip", "shift"] = "absolute"
    """What an inverse does with negative eigenvalues μ: absolute |μ|, signed μ, clip max(μ, 0),
    shift μ − μ_min."""
    inversion: str = "damped"
    """How every damping L of the grid enters the inverse of every rung.
    damped: L is added to the whole rung;
    per_layer: L times a layer's own mean eigenvalue over that of the rung, layer by layer;
    factored: both Kronecker factors damped in place of their product; rungs without factors stay
    damped;
    pseudo_inverse: no damping, and eigenvalues up to L left out;
    truncated:E: damped by L, then damped eigenvalues up to E left out (1e-6)."""
    rules: str = "layer_mean,mean:1"
    """Dampings that need no retraining, scored beside the protocols; separated by commas. Each is
    an inversion of its own, whatever --inversion says.
    layer_mean:C: C times each layer's own mean eigenvalue (0.1, as kronfluence's None);
    mean:C: C times the mean eigenvalue of the whole rung (0.1);
    fixed:L: the same damping L on every rung (1e-4, that of Hong et al. 2025);
    factored:L: both Kronecker factors damped in place of their product (1e-4);
    pseudo_inverse:E: no damping, and eigenvalues up to E left out (1e-4);
    truncated:L:E: damped by L (1e-4), then damped eigenvalues up to E left out (1e-6)."""
    damping_low: float = 1e-4
    """Smallest damping, as a multiple of trace(GGN) / min(P, N·C), the mean of the eigenvalues that
    the examples can make non-zero."""
    damping_high: float = 1e4
    """Largest damping, likewise."""
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
    memory: float | None = None
    """GiB that curvature may take; default three quarters of what is free. Rungs whose matrices do
    not fit take other forms: see `decompose plan`."""
    products: Literal["float64", "float32"] = "float64"
    """Precision of the products with H and G that take the place of matrices that do not fit."""

    def __post_init__(self) -> None:
        """Check every value once."""
        check_fields(self, RULES, DecompositionError)
        if as_inversion(self.inversion).signs and self.negative != "absolute":
            raise DecompositionError(
                f"inversion {self.inversion} says itself what becomes of negative eigenvalues: "
                f"leave negative={self.negative!r} out, or take another inversion"
            )
        if self.damping_low >= self.damping_high:
            raise DecompositionError(
                f"dampings need 0 < low < high, got damping_low={self.damping_low}, "
                f"damping_high={self.damping_high}"
            )

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
        """The damping grid as multiples of trace(GGN) / min(P, N·C)."""
        return np.geomspace(self.damping_low, self.damping_high, self.damping_points)
