"""One tiny study, shared by the tests of the stages."""

from __future__ import annotations

import pytest
import xarray as xr

from decomposition import Recipe, Settings, run
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


@pytest.fixture(scope="session")
def tiny() -> xr.DataTree:
    """A study of two base models."""
    return run(tiny_problem(), settings=SETTINGS, progress=False)
