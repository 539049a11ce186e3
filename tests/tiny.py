"""One tiny study: its problem and settings; the fixture ``tiny`` holds its result."""

from __future__ import annotations

from decomposition import Recipe, Settings
from decomposition.problem import Problem
from tests import cases


def tiny_problem() -> Problem:
    problem = cases.tanh()
    return Problem(
        problem.model,
        problem.loss,
        problem.train,
        problem.query,
        recipe=Recipe(lr=0.1, epochs=30, batch_size=8),
        name="tiny",
    ).trained()


SETTINGS = Settings(masks=60, second_order_masks=20, resamples=200, base_seeds=2, damping_points=7)
