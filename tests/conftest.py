"""Fixtures shared by all tests."""

import pytest
from hypothesis import settings

from decomposition.problem import Problem
from tests.cases import CASES
from tests.general import GENERAL

# Examples are drawn the same way every time, and a slow machine fails no test.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(params=list(CASES))
def problem(request: pytest.FixtureRequest) -> Problem:
    """Every small problem in turn."""
    return CASES[request.param]()


@pytest.fixture(params=list(GENERAL), scope="module")
def general(request: pytest.FixtureRequest) -> Problem:
    """Every small problem beyond plain multilayer perceptrons in turn."""
    return GENERAL[request.param]()
