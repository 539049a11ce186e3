"""Influence scores without the P × N matrix of training gradients.

With u_q = (C + λI)⁻¹ g_q, the score τ[q, i] = g_i · u_q / N is the derivative of the loss of
example i along u_q. For a few u_q one forward-mode sweep over the training examples gives it for
all of them; for many, gradients are made, some examples at a time, and multiplied with all u_q.
Memory is that of the solutions, P numbers a query, and one batch: the P × N matrix of training
gradients is never formed; it is read from the disk where it has been put there (``stored``). Query
gradients that do not fit are made again for every damping: they cost one backward pass, the solve
some hundred products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.evaluation import Evaluation
from decomposition.curvature.jacobian_rows import per_example_gradients
from decomposition.curvature.operator import Curvature
from decomposition.damping import NegativeCurvature
from decomposition.device import chunk_bytes
from decomposition.inputs import Inputs, take
from decomposition.linalg import matmul
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.retraining.measures import Measure
from decomposition.scores.stored import StoredGradients
from decomposition.targets.margin import Margin
from decomposition.targets.names import check_problem

QUERY_NUMBERS = 2**27
"""Numbers in the query gradients and solutions that are held at once: 1 GB each."""
SWEPT_COLUMNS = 2
"""Columns up to which derivatives along them cost less than gradients."""
GRADIENT_NUMBERS = 2**26
"""Numbers in the training gradients that are made at once: 512 MB."""


class StreamedScores:
    """Scores of any rung of one problem, query gradients made once if they fit.

    Args:
        problem: trained.
        function: what is measured on the queries, as in ``target_gradients``.
        stored: training gradients on disk, which are then read and not made.

    Raises:
        ProblemError: the margin of a problem without classes.
    """

    def __init__(
        self, problem: Problem, function: Measure = "loss", stored: StoredGradients | None = None
    ) -> None:
        """Prepare a float64 copy of the model."""
        check_problem(problem, function)
        self._problem, self._evaluation = problem, Evaluation(problem)
        self._stored = stored
        self._asked = problem if function == "loss" else replace(problem, loss=Margin())
        self._kept: Tensor | None = None
        self._fitting = problem.num_queries  # until memory has run out

    def __call__(
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

        def some(rows: slice) -> Float[Tensor, "k N"]:
            return self.along(curvature.solve(self.query_gradients(rows), damping, negative))

        queries = self._problem.num_queries
        found = list(shrinking(some, queries, self._most(), shrunk=self._shrunk))
        return torch.cat(found) / self._problem.num_examples

    @property
    def examples(self) -> int:
        """N."""
        return self._problem.num_examples

    @property
    def queries(self) -> int:
        """Q."""
        return self._problem.num_queries

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

    def along(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """g_i · v of every training example."""
        if self._stored is not None:
            return self._stored.along(v)
        return self._by_gradients(v) if v.shape[1] > SWEPT_COLUMNS else self._by_sweeps(v)

    def _by_gradients(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """Every gradient is made once, whatever the number of columns."""
        x, y = self._problem.rows("train")

        def some(rows: slice) -> Float[Tensor, "k n"]:
            return matmul(per_example_gradients(self._problem, take(x, rows), y[rows]), v).T

        one = 8 * self._problem.num_parameters
        step = chunk_bytes(v.device, 8 * GRADIENT_NUMBERS) // one
        return torch.cat(list(shrinking(some, self._problem.num_examples, step)), 1)

    def _by_sweeps(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """The derivative of every loss along every column."""
        evaluation = self._evaluation

        def some(columns: slice) -> Tensor:
            chunk = v[:, columns]

            def batch(x: Inputs, y: Tensor, rows: slice) -> Float[Tensor, "k n"]:
                def derivative(direction: Tensor) -> Tensor:
                    return torch.func.jvp(
                        lambda p: evaluation.losses(p, x, y),
                        (evaluation.chosen,),
                        (evaluation.tangent(direction),),
                    )[1]

                with evaluation.guarded():
                    return torch.func.vmap(derivative, 1, 0)(chunk)

            parts = evaluation.over(self._problem.rows("train"), chunk.shape[1], batch)
            return torch.cat(list(parts), 1)

        return torch.cat(list(evaluation.by_columns(v.shape[1], some)))
