"""Scores of rungs whose matrices are too large to form, over the damping grid of a run.

The grid is that of dense runs, as multiples of tr G / min(P, N·C), the mean of the eigenvalues of
G that the examples make non-zero. Where a matrix-free rung cannot be solved (λ far below its
eigenvalues) its scores are missing, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from tqdm import tqdm

from decomposition.attribution.influence import random_scores
from decomposition.attribution.streamed import StreamedScores
from decomposition.curvature import Curvature
from decomposition.curvature.large import MatrixFreeCurvature
from decomposition.linalg import to_numpy
from decomposition.problem import Problem
from decomposition.results.schema import BASELINES
from decomposition.settings import Settings
from decomposition.targets.names import measured_function

SOLUTION_NUMBERS = 2**27
"""Numbers in the solutions that are held at once: 1 GB."""


@dataclass(frozen=True)
class GridScores:
    """τ of every rung and baseline over a grid of dampings."""

    dampings: Float[np.ndarray, " D"]
    """λ, ascending."""
    tau: dict[str, Float[np.ndarray, "D Q N"]]
    """Float32; NaN at dampings where the rung was not solved for every query."""
    notes: tuple[str, ...]
    """What was not solved, and why."""

    def solved(self, name: str) -> Bool[np.ndarray, " D"]:
        """At which dampings there are scores."""
        return np.asarray(np.isfinite(self.tau[name]).all((1, 2)))


def damping_grid(
    problem: Problem, rungs: Mapping[str, Curvature], settings: Settings
) -> np.ndarray:
    """λ (D,): the run's multiples of tr G / min(P, N·C). EK-FAC has the trace of G."""
    rank = min(problem.parameters, problem.examples * problem.outputs)
    return settings.multipliers() * rungs["ekfac"].trace() / rank


def grid_scores(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    dampings: Float[np.ndarray, " D"],
    settings: Settings,
    progress: bool = False,
) -> GridScores:
    """τ[q, i] = g_qᵀ (C + λI)⁻¹ g_i / N of every rung, of the identity, and at random.

    Args:
        problem: trained.
        rungs: in chain order, and the user's own.
        dampings: ascending.
        settings: policy for negative eigenvalues, seed.
        progress: show a bar over the rungs.
    """
    streamed = StreamedScores(problem, measured_function(settings.target))
    tau, notes = {}, []
    with tqdm(rungs.items(), desc="scores", unit="rung", disable=not progress) as bar:
        for name, rung in bar:
            bar.set_postfix_str(name)
            with _watched(rung, name, problem.queries, progress):
                tau[name], said = _over_grid(problem, streamed, rung, dampings, settings)
            if said:
                missing = len(dampings) - int(np.isfinite(tau[name]).all((1, 2)).sum())
                notes.append(
                    f"no scores of {name} at {missing} of {len(dampings)} dampings, nor an LDS: "
                    + said[-1]
                )
    every = max(1, SOLUTION_NUMBERS // problem.parameters)
    flat = torch.cat([streamed.along(part) for part in streamed.query_parts(every)])
    random = random_scores(len(flat), flat.shape[1], settings.seed)
    for name, one in zip(BASELINES, (flat, random), strict=True):
        tau[name] = np.broadcast_to(to_numpy(one.float()), (len(dampings), *one.shape))
    return GridScores(dampings, tau, tuple(notes))


@contextmanager
def _watched(rung: Curvature, name: str, queries: int, progress: bool) -> Iterator[None]:
    """A bar over the products of a rung that is solved by them; solves may end before it does."""
    if not isinstance(rung, MatrixFreeCurvature):
        yield
        return
    total = queries * min(rung.krylov_steps, rung.size)
    with tqdm(
        total=total, desc=f"solves of {name}", unit="product", disable=not progress, leave=False
    ) as bar:
        rung.watch = bar.update
        try:
            yield
        finally:
            rung.watch = None


def _over_grid(
    problem: Problem,
    streamed: StreamedScores,
    rung: Curvature,
    dampings: Float[np.ndarray, " D"],
    settings: Settings,
) -> tuple[Float[np.ndarray, "D Q N"], list[str]]:
    count = len(dampings)
    found: list[np.ndarray] = []
    said: dict[str, None] = {}
    for gradients in streamed.query_parts(max(1, SOLUTION_NUMBERS // (rung.size * count))):
        solutions = rung.solutions(gradients, dampings.tolist(), settings.negative)
        said |= dict.fromkeys(solutions.failures)
        solved = torch.nonzero(torch.isfinite(solutions.x).all((1, 2))).flatten()
        queries = gradients.shape[1]
        part = np.full((count, queries, problem.examples), np.nan, np.float32)
        if len(solved):
            columns = solutions.x[solved].movedim(1, 0).flatten(1)  # (P, solved · k)
            products = streamed.along(columns) / problem.examples
            part[solved.cpu()] = to_numpy(products.unflatten(0, (len(solved), queries)))
        found.append(part)
    tau = np.concatenate(found, 1)
    tau[~np.isfinite(tau).all((1, 2))] = np.nan
    return tau, list(said)
