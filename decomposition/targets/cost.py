"""How long proximal responses take here, before they are solved: their two dear parts, timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from decomposition.curvature.operator import Curvature
from decomposition.problem import Problem
from decomposition.targets.chunks import together
from decomposition.targets.newton import newton_step
from decomposition.targets.proximal import ProximalObjective

EVALUATIONS = 6
"""Gradients, and steps, that a response takes: 3 to 8 have been seen."""
PRODUCTS = 25
"""Products with G that an iterated step takes: 25 to 50 have been seen."""
ROWS = 64
"""Examples of the timed gradient; all of them take proportionally longer."""


def proximal_seconds(
    problem: Problem, curvature: Curvature, damping: float, count: int, ggn: Curvature | None
) -> float:
    """Predicted seconds of ``count`` responses, to within a factor of a few.

    Args:
        problem: trained.
        curvature: the metric.
        damping: λ.
        count: of removed examples.
        ggn: as in ``proximal_responses``.
    """
    if not count:
        return 0.0
    stack = min(count, together(problem.num_parameters))
    few = problem.of_examples(slice(0, min(ROWS, problem.num_examples)))
    objective = ProximalObjective(few, damping)
    delta = torch.zeros(stack, problem.num_parameters, dtype=torch.float64, device=problem.device)
    removed = torch.arange(stack, device=problem.device) % few.num_examples
    gradient = _seconds(lambda: objective.gradient(delta, removed), problem.device)
    gradient *= problem.num_examples / few.num_examples
    step, v = 0.0, torch.ones_like(delta.T)
    if ggn is not None and ggn.matrix_free:
        step = PRODUCTS * _seconds(
            lambda: (ggn.matvec(v), curvature.solve(v, damping, "absolute")), problem.device
        )
    elif ggn is not None:
        solve = newton_step(ggn, curvature, damping)
        step = _seconds(lambda: solve(v), problem.device)
    return count / stack * EVALUATIONS * (gradient + step)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    started = wait()
    work()
    first = wait() - started
    if first > 1.0:  # the warming up no longer counts
        return first
    work()
    return min(first, wait() - started - first)
