"""The Fisher matrices that a Gauss–Newton curvature can stand for: exact, sampled, empirical.

Each is F = (1/N) Σ_n J_nᵀ (R_n R_nᵀ) J_n with its own root R_n (C × K) at the model's outputs:

    exact       R Rᵀ = Λ_n (K = C): the GGN, the *type-2* Fisher
    sampled     R = [∇_f ℓ(f, ỹ_1), …, ∇_f ℓ(f, ỹ_K)] / √K with labels ỹ_k drawn from the model's
                predictive distribution p(y | f) ∝ exp(−ℓ(f, y)) (with weights in the loss, see
                ``sampled_gradient``): unbiased, E[R Rᵀ] = Λ_n
    empirical   R = ∇_f ℓ(f, y) with the training label (K = 1): no estimate of the GGN

(Martens 2020, arXiv 1412.1193; Kunstner et al. 2019, arXiv 1905.12558.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.checks import check_fields, seed, whole
from decomposition.curvature.counter_rng import uniforms
from decomposition.curvature.jacobian import JacobianRows
from decomposition.curvature.terms import (
    TERMS_BYTES,
    GaussNewtonTerms,
    LayerPasses,
    LayerTerms,
    Result,
    Root,
    on_batches,
)
from decomposition.errors import DecompositionError
from decomposition.inputs import Inputs
from decomposition.layers import Block
from decomposition.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    CustomLoss,
    Loss,
    MeanSquaredError,
)
from decomposition.losses.base import by_position, side_by_side
from decomposition.losses.weighted import Weighted
from decomposition.problem import Problem


class Fisher(ABC):
    """Which Fisher matrix."""

    @property
    def columns(self) -> int:
        """K, where it may exceed C; 0 where not."""
        return 0

    def rows(self, outputs: int) -> int:
        """K of a model with C ``outputs``."""
        return self.columns or outputs

    def beginning_at(self, start: int) -> Fisher:
        """The same Fisher for a problem whose first example is the ``start``-th of another's."""
        return self

    @abstractmethod
    def root(
        self, loss: Loss, f: Float[Tensor, "n C"], y: Tensor, first: int
    ) -> Float[Tensor, "n C K"]:
        """R of the examples ``first`` … ``first`` + n − 1."""


@dataclass(frozen=True)
class Exact(Fisher):
    """R Rᵀ = Λ: the sum over all labels, no sampling."""

    def root(self, loss: Loss, f: Tensor, y: Tensor, first: int) -> Tensor:
        """The square root of Λ."""
        return loss.hessian_sqrt(f, y)


@dataclass(frozen=True)
class Sampled(Fisher):
    """K labels per example from the model's predictive distribution.

    Draw k of example n depends on (seed, k, n) alone: neither batches nor the number of samples
    change it, and factors, corrected eigenvalues and dense blocks of one seed are made of the
    same labels, that is, of one sampled Fisher.

    Raises:
        DecompositionError: fewer than one sample, or a negative seed.
    """

    samples: int = 1
    """K."""
    seed: int = 0
    """Seed of the labels."""
    start: int = 0
    """Draws begin with those of this example."""

    def __post_init__(self) -> None:
        """Check the number of samples, the seed and the start."""
        rules = {"samples": whole(1), "seed": seed, "start": whole()}
        check_fields(self, rules, DecompositionError, "the {} of a sampled Fisher")

    @property
    def columns(self) -> int:
        """K."""
        return self.samples

    def beginning_at(self, start: int) -> Sampled:
        """With the labels of the examples from there on."""
        return replace(self, start=self.start + start)

    def root(self, loss: Loss, f: Tensor, y: Tensor, first: int) -> Tensor:
        """∇_f ℓ(f, ỹ_k) / √K."""
        draws = [
            uniforms((self.seed, k), self.start + first, *f.shape).to(f.device)
            for k in range(self.samples)
        ]
        gradients = [sampled_gradient(loss, f, y, u) for u in draws]
        return torch.stack(gradients, -1) / self.samples**0.5


@dataclass(frozen=True)
class Empirical(Fisher):
    """The training labels' own gradients."""

    def rows(self, outputs: int) -> int:
        """One."""
        return 1

    def root(self, loss: Loss, f: Tensor, y: Tensor, first: int) -> Tensor:
        """∇_f ℓ(f, y)."""
        gradient = torch.func.grad(lambda outputs: loss.per_example(outputs, y).sum())(f)
        return gradient[:, :, None]


EXACT = Exact()


@singledispatch
def sampled_gradient(
    loss: Loss, f: Float[Tensor, "n C"], y: Tensor, u: Float[Tensor, "n C"]
) -> Float[Tensor, "n C"]:
    """A column r with E[r rᵀ] = Λ: ∇_f ℓ(f, ỹ) with ỹ drawn by uniforms ``u`` in (0, 1).

    For a loss that is a negative log-density, ỹ ~ p(y | f) ∝ exp(−ℓ(f, y)) and the targets ``y``
    play no part. Weights and smoothing change what counts how often, not what the model predicts:
    ỹ is drawn from the distribution without them, and the gradient without them is scaled by the
    root of the factor that they put in front of its covariance in Λ, which may depend on ``y``.

    Register a function for a loss of one's own: ``sampled_gradient.register(MyLoss, function)``.

    Raises:
        DecompositionError: nobody has said how to draw labels under this loss.
    """
    raise DecompositionError(
        f"no way is known to draw labels under the loss {type(loss).__name__}: register one with "
        "decomposition.curvature.fisher.sampled_gradient.register, or use exact factors"
    )


@sampled_gradient.register
def _(loss: CrossEntropy, f: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """√s (p − e_ỹ) with ỹ ~ Categorical(p), by inversion of its distribution function.

    s is the sum of the example's target (0 where it is ignored): Λ = s Cov[e_ỹ]. The gradients of
    the smoothed loss itself would not do: drawn from p, their mean is not zero. With T positions
    each draws a label of its own and counts s/T times: what they share is zero in the mean.
    """
    rows, labels = by_position(f, y)
    p = rows.softmax(-1)
    cumulative = p.cumsum(-1)
    label = (cumulative < by_position(u, y)[0][:, :1] * cumulative[:, -1:]).sum(-1)
    drawn = torch.nn.functional.one_hot(label, p.shape[-1])
    counts = loss.total_targets(rows, labels) / y.shape[1:].numel()
    return side_by_side(counts.sqrt()[:, None] * (p - drawn), y)


@sampled_gradient.register
def _(loss: BinaryCrossEntropy, f: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """√a_c (p_c − ỹ_c) with independent ỹ_c ~ Bernoulli(p_c), p = σ(f): Λ = diag(a p (1 − p)).

    The mean over C outputs makes each of them count 1/C times, and so does a_c.
    """
    p = f.sigmoid()
    return loss.scales(f, y).sqrt() * (p - (u < p).to(p.dtype))


@sampled_gradient.register
def _(loss: MeanSquaredError, f: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """2 (f − ỹ) / C = √(2/C) ε: ℓ = ‖f − y‖²/C is the density of ỹ ~ N(f, (C/2) I)."""
    return (2.0 / f.shape[-1]) ** 0.5 * torch.special.ndtri(u)


@sampled_gradient.register
def _(loss: Weighted, f: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """√w times that of the loss without weights."""
    targets, weights = loss.split(y)
    return weights.sqrt()[:, None] * sampled_gradient(loss.loss, f, targets, u)


@sampled_gradient.register
def _(loss: CustomLoss, f: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Refused: a function says what a label costs, not how likely the model finds it."""
    raise DecompositionError(
        f"no way is known to draw labels under the loss {loss.name}, which is a function: use "
        "exact factors, or a subclass of CustomLoss that is registered with "
        "decomposition.curvature.fisher.sampled_gradient.register"
    )


def on_fisher_passes(
    problem: Problem, fisher: Fisher, work: Callable[[LayerPasses], Result]
) -> Iterator[Result]:
    """``work`` of the layer inputs and roots of every batch of training examples.

    Of what is a sum over columns: these are there one after the other, never all at once.
    """
    of, columns = LayerTerms(problem), fisher.rows(problem.num_outputs)
    numbers, rows = of.numbers_per_pass(columns), max(1, of.most_in_a_pass // of.largest)

    def batch(x: Inputs, y: Tensor, first: int) -> Result:
        return work(of.passes(x, y, root_of(problem, fisher, first)))

    return on_batches(problem, numbers, batch, 8 * numbers * rows)


def fisher_terms(problem: Problem, fisher: Fisher = EXACT) -> Iterator[GaussNewtonTerms]:
    """Layer inputs a_l,t and roots s_l,t = R_nᵀ J_l,t of every batch of training examples."""
    return on_fisher_terms(LayerTerms(problem), fisher, lambda terms: terms)


def on_fisher_terms(
    of: LayerTerms,
    fisher: Fisher,
    work: Callable[[GaussNewtonTerms], Result],
    columns: int = 0,
    at_once: int = TERMS_BYTES,
) -> Iterator[Result]:
    """``work`` of the terms of every batch of training examples.

    Args:
        of: the terms' problem.
        fisher: whose root.
        work: what is made of them.
        columns: numbers that it makes of every layer output.
        at_once: bytes of one batch.
    """
    problem = of.problem
    numbers = of.numbers_per_example(max(problem.num_outputs, fisher.columns) + columns)

    def batch(x: Inputs, y: Tensor, first: int) -> Result:
        return work(of.gauss_newton(x, y, root_of(problem, fisher, first)))

    return on_batches(problem, numbers, batch, at_once)


def jacobian_rows(
    problem: Problem, fisher: Fisher = EXACT, blocks: Iterable[Block] | None = None
) -> Iterator[Float[Tensor, "n K width"]]:
    """Rows R_nᵀ J_n of every batch of training examples, for all parameters or some blocks."""
    rows = JacobianRows(problem, blocks)
    numbers = rows.numbers_per_example(max(problem.num_outputs, fisher.columns))

    def of_batch(x: Inputs, y: Tensor, first: int) -> Float[Tensor, "n K width"]:
        return rows(x, y, root_of(problem, fisher, first))

    return on_batches(problem, numbers, of_batch)


def root_of(problem: Problem, fisher: Fisher, first: int) -> Root:
    """(outputs, targets) → R of the examples from ``first`` on."""
    return lambda f, y: fisher.root(problem.loss_function, f, y, first)
