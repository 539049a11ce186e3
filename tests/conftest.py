"""Fixtures shared by all tests."""

import os
import warnings

import pytest
import torch
import xarray as xr
from hypothesis import settings
from threadpoolctl import threadpool_limits

from decomposition import run
from decomposition.problem import Problem
from tests import tiny as one_study
from tests.cases import CASES
from tests.general import GENERAL

# Tests run side by side: one thread each, or they fight for the cores. xdist's workers and every
# other process started from here inherit the variables; in this one the libraries are loaded.
os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
threadpool_limits(1)
torch.set_num_threads(1)

# torch 2.14 warns of its own code when forward mode is first used: here, where no test is blamed.
with warnings.catch_warnings(action="ignore", category=FutureWarning):
    torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))

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


@pytest.fixture(scope="session")
def tiny() -> xr.DataTree:
    """A study of two base models."""
    return run(one_study.tiny_problem(), settings=one_study.SETTINGS, progress=False)
