"""Gradients of every training example and query: in memory, or made whenever they are asked for.

Scores need ∇m_q of the queries, and g_i · v of every training example along some directions v: the
solutions u_q = (C + λI)⁻¹ ∇m_q, since τ[q, i] = g_i · u_q / N. ``gradient_source`` picks what fits:

- ``Gradients``: both matrices in memory, P · (N + Q) numbers.
- ``StreamedGradients``: the P × N matrix is never formed. For a few directions one forward-mode
  sweep over the training examples gives the derivative of every loss along them; for many,
  gradients are made, some examples at a time, and multiplied with all of them. Query gradients that
  do not fit are made again for every damping: they cost one backward pass, a solve some hundred
  products.
- ``StreamedGradients`` with ``StoredGradients``: training gradients lie on disk and are read.

The numbers are the same to rounding, but those on disk are in single precision by default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomposition.checks import shown
from decomposition.curvature.graphs import Graph, Graphs
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.curvature.operator import Curvature
from decomposition.damping import NegativeCurvature
from decomposition.device import chunk_bytes, free_memory_on
from decomposition.errors import DecompositionError, ProblemError
from decomposition.inputs import take
from decomposition.linalg import from_numpy, matmul
from decomposition.losses import CustomLoss
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.resources import bytes_of
from decomposition.scores.stored import StoredGradients
from decomposition.targets.functions import Margin, Measure, check_problem

QueryFunction = Measure | Callable[[Tensor, Tensor], Tensor]
"""m: ``loss``, ``margin``, or a function of outputs (n, C) and targets (n, …) with n values."""

IN_MEMORY = 0.25
"""Share of the free memory that gradients may take; scores hold them rotated, too."""
QUERY_NUMBERS = 2**27
"""Numbers in the query gradients and solutions that are held at once: 1 GB each."""
SWEPT_COLUMNS = 2
"""Columns up to which derivatives along them cost less than gradients."""
GRADIENT_NUMBERS = 2**26
"""Numbers in the training gradients that are made at once: 512 MB."""


class GradientSource(ABC):
    """Gradients of one problem at its model's present parameters, in float64."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """N."""

    @property
    @abstractmethod
    def queries(self) -> int:
        """Q."""

    @abstractmethod
    def query_parts(self, most: int) -> Iterator[Float[Tensor, "P k"]]:
        """∇m_q of all queries, at most so many at a time."""

    @abstractmethod
    def train_parts(self) -> Iterator[Float[Tensor, "P n"]]:
        """g_i of all training examples, some at a time."""

    @abstractmethod
    def along(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """g_i · v of every training example."""

    def through(
        self, v: Float[Tensor, "P k"], parts: Sequence[slice]
    ) -> list[Float[Tensor, "k N"]]:
        """g_i · v through each of some parts of the parameters alone, in the precision of v."""
        found: list[list[Tensor]] = [[] for _ in parts]
        for gradients in self.train_parts():
            for pieces, part in zip(found, parts, strict=True):
                pieces.append(matmul(v[part].T, gradients[part].to(v.dtype)))
        return [torch.cat(pieces, 1) for pieces in found]

    @abstractmethod
    def scores(
        self,
        curvature: Curvature,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[Tensor, "queries train"]:
        """τ at one damping.

        Raises:
            DampingError: the damped curvature is singular.
            SolverError: an iterative solve did not reach its tolerance.
        """


@dataclass(frozen=True)
class Gradients(GradientSource):
    """Gradients in memory; columns are examples."""

    train: Float[Tensor, "P N"]
    """g_i, of the loss on every training example."""
    query: Float[Tensor, "P Q"]
    """∇m_q, of the measured function on every query."""

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

    def train_parts(self) -> Iterator[Float[Tensor, "P n"]]:
        """All at once."""
        yield self.train

    def along(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """g_i · v of every training example."""
        return matmul(v.T, self.train)

    def scores(
        self,
        curvature: Curvature,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[Tensor, "queries train"]:
        """τ at one damping."""
        return next(score_grid(curvature, self, [damping], negative))


class StreamedGradients(GradientSource):
    """Gradients that are made when they are asked for; those of queries once, if they fit.

    Args:
        problem: trained.
        function: what is measured on the queries, as in ``query_problem``.
        stored: training gradients on disk, which are then read and not made.

    Raises:
        ProblemError: as ``query_problem``.
    """

    def __init__(
        self,
        problem: Problem,
        function: QueryFunction = "loss",
        stored: StoredGradients | None = None,
    ) -> None:
        """Prepare a float64 copy of the model."""
        self._problem, self._graphs = problem, Graphs(problem)
        self.stored = stored
        self._asked = query_problem(problem, function)
        self._kept: Tensor | None = None
        self._sums: tuple[np.ndarray, Tensor] | None = None
        self._fitting = problem.num_queries  # until memory has run out

    @property
    def examples(self) -> int:
        """N."""
        return self._problem.num_examples

    @property
    def queries(self) -> int:
        """Q."""
        return self._problem.num_queries

    def scores(
        self,
        curvature: Curvature,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[Tensor, "queries train"]:
        """τ at one damping, some queries at a time."""

        def some(rows: slice) -> Float[Tensor, "k N"]:
            return self.along(curvature.solve(self.query_gradients(rows), damping, negative))

        queries = self._problem.num_queries
        found = list(shrinking(some, queries, self._most(), shrunk=self._shrunk))
        return torch.cat(found) / self._problem.num_examples

    def query_gradients(self, rows: slice) -> Float[Tensor, "P k"]:
        """∇m_q of some queries; those of all are kept where they may be held at once."""
        if self._kept is None and self._most() >= self._problem.num_queries:
            self._kept = self._made(slice(0, self._problem.num_queries))
        return self._made(rows) if self._kept is None else self._kept[:, rows]

    def query_parts(self, most: int) -> Iterator[Float[Tensor, "P k"]]:
        """∇m_q of all queries, at most so many at a time."""
        most = min(most, self._most())
        return shrinking(self.query_gradients, self._problem.num_queries, most, shrunk=self._shrunk)

    def _made(self, rows: slice) -> Float[Tensor, "P k"]:
        x, y = self._problem.rows("query")
        return per_example_gradients(self._asked, take(x, rows), y[rows]).T

    def _most(self) -> int:
        """Queries held at once, as far as is known."""
        one = 8 * self._problem.num_parameters
        return max(
            1, min(self._fitting, chunk_bytes(self._problem.device, 8 * QUERY_NUMBERS) // one)
        )

    def _shrunk(self, queries: int) -> None:
        self._fitting, self._kept = min(self._fitting, queries), None

    def train_parts(self) -> Iterator[Float[Tensor, "P n"]]:
        """Made or read."""
        if self.stored is not None:
            yield from (rows.T for rows in self.stored.parts())
            return
        x, y = self._problem.rows("train")

        def some(rows: slice) -> Float[Tensor, "P n"]:
            return per_example_gradients(self._problem, take(x, rows), y[rows]).T

        device = y.device
        step = chunk_bytes(device, 8 * GRADIENT_NUMBERS) // (8 * self._problem.num_parameters)
        yield from shrinking(some, self._problem.num_examples, step)

    def summed(self, masks: Bool[np.ndarray, "M N"]) -> Float[Tensor, "P M"]:
        """Σ_{i ∈ S_j} g_i of every subset, in single precision; kept for the masks seen last."""
        if self._sums is None or self._sums[0] is not masks:
            done, total = 0, None
            for part in self.train_parts():
                chosen = masks[:, done : (done := done + part.shape[1])]
                weights = from_numpy(chosen.T.astype(np.float64), part)
                new = matmul(part, weights)
                total = new if total is None else total.add_(new)
            assert total is not None
            self._sums = masks, total.float()
        return self._sums[1]

    def along(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """g_i · v of every training example."""
        if self.stored is not None:
            return self.stored.along(v)
        if v.shape[1] <= SWEPT_COLUMNS:
            return self._by_sweeps(v)
        return self.through(v, [slice(None)])[0]  # every gradient is made once

    def _by_sweeps(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """The derivative of every loss along every column."""

        def some(columns: slice) -> Float[Tensor, "k N"]:
            along = v[:, columns].T.double().contiguous()

            def batch(graph: Graph, rows: slice) -> Float[Tensor, "k n"]:
                return (graph.forward(along) * graph.output_gradient).sum(-1)

            return torch.cat(list(self._graphs.over(batch)), 1)

        return torch.cat(list(self._graphs.by_columns(v.shape[1], some)))


def gradient_source(
    problem: Problem,
    function: QueryFunction = "loss",
    memory: int | None = None,
    folder: str | Path | None = None,
) -> GradientSource:
    """Gradients in memory where they fit, else on disk in ``folder``, else made when asked for.

    Args:
        problem: gradients are taken at its model's present parameters.
        function: m, which is differentiated on the queries.
        memory: bytes that both matrices may take; default a quarter of what is free.
        folder: where training gradients that do not fit into memory are kept, and found again.

    Raises:
        ProblemError: as ``query_problem``.
        StoreError: the folder cannot be used, or its disk is too small.
    """
    budget = int(IN_MEMORY * free_memory_on(problem.device)) if memory is None else memory
    if 8 * problem.num_parameters * (problem.num_examples + problem.num_queries) <= budget:
        return target_gradients(problem, function)
    source = StreamedGradients(problem, function)  # refused before anything is written
    if folder is not None:
        source.stored = StoredGradients(problem, folder)
    return source


def query_problem(problem: Problem, function: QueryFunction = "loss") -> Problem:
    """The problem whose loss is m: its gradients on the queries are ∇m_q.

    Raises:
        ProblemError: the margin of a problem without classes, or a function that does not return
            one finite number for every example, of that example alone, which autograd follows.
    """
    if callable(function):
        name = getattr(function, "__name__", "function")
        return replace(problem, loss=CustomLoss(function, name, convexify=True))
    if function not in get_args(Measure):
        raise ProblemError(
            f"function must be {' or '.join(map(repr, get_args(Measure)))}, or a function of "
            f"outputs and targets, got {shown(function)}"
        )
    if function == "loss":
        return problem
    check_problem(problem, function)
    return replace(problem, loss=Margin())


def loss_gradients(problem: Problem) -> Gradients:
    """g_i of every training example and g_q of every query."""
    return target_gradients(problem)


def target_gradients(problem: Problem, function: QueryFunction = "loss") -> Gradients:
    """Loss gradients g_i of the training examples, and ∇m_q of the measured function.

    Removing example i moves θ by (C + λI)⁻¹ g_i / N whatever is measured, so the same product
    with ∇m_q predicts the change of m_q, with the sign of τ: that of the change itself.

    Raises:
        ProblemError: as ``query_problem``.
    """
    asked = query_problem(problem, function)
    return Gradients(
        per_example_gradients(problem, *problem.rows("train")).T,
        per_example_gradients(asked, *problem.rows("query")).T,
    )


def influence_scores(
    problem: Problem,
    curvature: Curvature,
    damping: float,
    negative: str | NegativeCurvature = "absolute",
    function: QueryFunction = "loss",
    *,
    memory: float | None = None,
    folder: str | Path | None = None,
) -> Float[Tensor, "queries train"]:
    """τ[q, i] = ∇m_qᵀ (C + λI)⁻¹ g_i / N: first-order change of m on q when i is removed.

    The sum of τ over a removed set predicts the change of m on the query (Koh & Liang 2017,
    arXiv 1703.04730). Units: those of m, by default the loss.

    Args:
        problem: gradients are taken at its model's present parameters.
        curvature: C, any rung.
        damping: λ ≥ 0.
        negative: policy for negative eigenvalues of C (see decomposition.damping).
        function: m, what is differentiated on the queries: ``"loss"``, ``"margin"`` (the log-odds
            of the label), or a function of outputs (n, C) and targets that returns n numbers.
        memory: GiB that gradients may take, default a quarter of what is free; where the
            P · (N + Q) numbers do not fit, gradients are made some at a time, with the same result.
        folder: where training gradients that do not fit are kept, in single precision: several
            rungs or dampings of one problem then read them instead of making them.

    Raises:
        DampingError: λ < 0, or the damped matrix is singular.
        DecompositionError: the curvature is none, or of another number of parameters.
        ProblemError: ``function`` does not fit the problem.
        StoreError: the folder cannot be used.
    """
    check_fits(curvature, problem.num_parameters)
    source = gradient_source(problem, function, bytes_of(memory), folder)
    return source.scores(curvature, damping, negative)


def score_grid(
    curvature: Curvature,
    gradients: Gradients,
    dampings: Sequence[float],
    negative: str | NegativeCurvature = "absolute",
) -> Iterator[Float[Tensor, "queries train"]]:
    """τ for every damping in turn.

    Into the eigenbasis go the queries, and training gradients where they are fewer than solved
    queries, which are rotated back otherwise.
    """
    check_fits(curvature, len(gradients.train))
    examples = gradients.train.shape[1]
    basis = curvature.eigenbasis
    if basis is None:
        for damping in dampings:
            # Queries are fewer than training examples, and C is symmetric.
            solved = curvature.solve(gradients.query, damping, negative)
            yield matmul(solved.T, gradients.train) / examples
        return
    query, spectrum = basis.to_basis(gradients.query), basis.spectrum()
    few = query.shape[1] * len(dampings) < examples
    train = gradients.train if few else basis.to_basis(gradients.train)
    for damping in dampings:
        solved = query * spectrum.inverse(damping, negative)[:, None]
        yield matmul((basis.from_basis(solved) if few else solved).T, train) / examples


def check_fits(curvature: Curvature, parameters: int) -> None:
    """Raise DecompositionError unless the curvature is one of as many parameters."""
    if not isinstance(curvature, Curvature):
        raise DecompositionError(
            "scores need a decomposition.curvature.Curvature such as build_chain(problem)['ggn'], "
            f"got {type(curvature).__name__}"
        )
    if curvature.size != parameters:
        raise DecompositionError(
            f"the curvature has {curvature.size} parameters, the gradients have "
            f"{parameters}: was it built for another model?"
        )


def random_scores(queries: int, examples: int, seed: int) -> Float[Tensor, "queries train"]:
    """Independent standard normal scores: the baseline that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        queries, examples, generator=generator, dtype=torch.float64, device=generator.device
    )
