"""Fixtures shared by all tests."""

import pytest

from decomposition.problem import Problem
from tests.cases import CASES


@pytest.fixture(params=list(CASES))
def problem(request: pytest.FixtureRequest) -> Problem:
    """Every small problem in turn."""
    return CASES[request.param]()
