"""Influence scores τ[q, i] = g_qᵀ (C + λI)⁻¹ g_i / N of every rung, over many dampings at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.jacobian_rows import per_example_gradients
from decomposition.curvature.operator import Curvature
from decomposition.damping import NegativeCurvature
from decomposition.errors import DecompositionError
from decomposition.linalg import matmul
from decomposition.problem import Problem
from decomposition.retraining.measures import Measure
from decomposition.targets.margin import Margin
from decomposition.targets.names import check_problem


@dataclass(frozen=True)
class Gradients:
    """Gradients at the model's present parameters (float64, columns are examples)."""

    train: Float[Tensor, "P N"]
    """Of the loss on every training example."""
    query: Float[Tensor, "P Q"]
    """Of the measured function on every query: the loss, or the margin."""

    @property
    def examples(self) -> int:
        """N."""
        return self.train.shape[1]

    @property
    def queries(self) -> int:
        """Q."""
        return self.query.shape[1]

    def query_parts(self, most: int) -> Iterator[Float[Tensor, "P k"]]:
        """∇m_q of all queries, at most so many at a time."""
        yield from self.query.split(max(1, most), dim=1)

    def along(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """g_i · v of every training example."""
        return matmul(v.T, self.train)


def loss_gradients(problem: Problem) -> Gradients:
    """g_i of every training example and g_q of every query."""
    return Gradients(
        per_example_gradients(problem, *problem.rows("train")).T,
        per_example_gradients(problem, *problem.rows("query")).T,
    )


def target_gradients(problem: Problem, function: Measure = "loss") -> Gradients:
    """Loss gradients g_i of the training examples, and ∇m_q of the measured function.

    Removing example i moves θ by (C + λI)⁻¹ g_i / N whatever is measured, so the same product
    with ∇m_q predicts the change of m_q, with the sign of τ: that of the change itself.

    Raises:
        ProblemError: the margin of a problem without classes.
    """
    if function == "loss":
        return loss_gradients(problem)
    check_problem(problem, function)
    margin = replace(problem, loss=Margin())
    return Gradients(
        per_example_gradients(problem, *problem.rows("train")).T,
        per_example_gradients(margin, *problem.rows("query")).T,
    )


def influence_scores(
    problem: Problem,
    curvature: Curvature,
    damping: float,
    negative: str | NegativeCurvature = "absolute",
) -> Float[Tensor, "queries train"]:
    """τ[q, i] = g_qᵀ (C + λI)⁻¹ g_i / N: first-order change of the loss on q when i is removed.

    The sum of τ over a removed set predicts the change of the query loss (Koh & Liang 2017,
    arXiv 1703.04730). Units: those of the loss.

    Args:
        problem: gradients are taken at its model's present parameters.
        curvature: C, any rung.
        damping: λ ≥ 0.
        negative: policy for negative eigenvalues of C (see decomposition.damping).

    Raises:
        DampingError: λ < 0, or the damped matrix is singular.
        DecompositionError: the curvature is none, or of another number of parameters.
    """
    return next(score_grid(curvature, loss_gradients(problem), [damping], negative))


def score_grid(
    curvature: Curvature,
    gradients: Gradients,
    dampings: Sequence[float],
    negative: str | NegativeCurvature = "absolute",
) -> Iterator[Float[Tensor, "queries train"]]:
    """τ for every damping in turn; gradients are rotated into the eigenbasis only once."""
    check_fits(curvature, gradients)
    examples = gradients.train.shape[1]
    basis = curvature.eigenbasis
    if basis is None:
        for damping in dampings:
            # Queries are fewer than training examples, and C is symmetric.
            solved = curvature.solve(gradients.query, damping, negative)
            yield matmul(solved.T, gradients.train) / examples
        return
    train = basis.to_basis(gradients.train)
    query = basis.to_basis(gradients.query)
    spectrum = basis.spectrum()
    for damping in dampings:
        inverse = spectrum.inverse(damping, negative)
        yield matmul((query * inverse[:, None]).T, train) / examples


def check_fits(curvature: Curvature, gradients: Gradients) -> None:
    """Raise DecompositionError unless the curvature is one of as many parameters."""
    if not isinstance(curvature, Curvature):
        raise DecompositionError(
            "scores need a decomposition.curvature.Curvature such as build_chain(problem)['ggn'], "
            f"got {type(curvature).__name__}"
        )
    if curvature.size != len(gradients.train):
        raise DecompositionError(
            f"the curvature has {curvature.size} parameters, the gradients have "
            f"{len(gradients.train)}: was it built for another model?"
        )


def random_scores(queries: int, examples: int, seed: int) -> Float[Tensor, "queries train"]:
    """Independent standard normal scores: the baseline that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        queries, examples, generator=generator, dtype=torch.float64, device=generator.device
    )
