"""Weyl, Hoffman–Wielandt and Davis–Kahan hold for every pair of symmetric matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decomposition.chain import build_lattice
from decomposition.curvature import DenseCurvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.spectrum.perturbation import lattice_steps, movements

STEP = {"step": ("before", "after")}


@st.composite
def pairs(draw: st.DrawFn) -> dict[str, DenseCurvature]:
    """R with a spread spectrum, and C = R + Δ of any size of Δ."""
    size = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    decades = draw(st.floats(0.0, 6.0))
    values = 10.0 ** -rng.uniform(0.0, decades, size) * rng.choice([-1.0, 1.0, 1.0], size)
    basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
    noise = rng.standard_normal((size, size)) * 10.0 ** draw(st.floats(-8.0, 1.0))
    reference = (basis * values) @ basis.T
    reference = 0.5 * (reference + reference.T)
    moved = reference + 0.5 * (noise + noise.T)
    return {
        "before": DenseCurvature(torch.from_numpy(reference)),
        "after": DenseCurvature(torch.from_numpy(moved)),
    }


@settings(deadline=None, max_examples=60)
@given(rungs=pairs())
def test_weyl(rungs: dict[str, DenseCurvature]) -> None:
    data = movements(rungs, STEP, subspaces=False).squeeze()
    assert float(data["moved"].max()) <= float(data["spectral_norm"]) * (1 + 1e-9) + 1e-14


@settings(deadline=None, max_examples=60)
@given(rungs=pairs())
def test_hoffman_wielandt(rungs: dict[str, DenseCurvature]) -> None:
    data = movements(rungs, STEP, subspaces=False).squeeze()
    assert float(data["moved_norm"]) <= float(data["frobenius_norm"]) * (1 + 1e-9) + 1e-14


@settings(deadline=None, max_examples=60)
@given(rungs=pairs())
def test_davis_kahan(rungs: dict[str, DenseCurvature]) -> None:
    data = movements(rungs, STEP).squeeze("step")
    # sin Θ comes from k − Σ cos², which rounding limits to about √ε
    assert bool((data["sine"] <= data["sine_bound"] * (1 + 1e-6) + 1e-6).all())


def test_the_bounds_hold_on_every_step_of_the_lattice(problem: Problem) -> None:
    rungs = build_lattice(problem)
    data = movements(rungs, lattice_steps(list(rungs)))
    assert bool((data["moved"] <= data["spectral_norm"] * (1 + 1e-9) + 1e-12).all())
    assert bool((data["sine"] <= data["sine_bound"] + 1e-6).all())


def test_a_rotation_moves_subspaces_and_no_eigenvalue() -> None:
    angle = 0.3
    turn = torch.tensor(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float64
    )
    matrix = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))
    rungs = {
        "before": DenseCurvature(matrix),
        "after": DenseCurvature(turn @ matrix @ turn.T),
    }
    data = movements(rungs, STEP).squeeze()
    assert float(data["moved"].max()) < 1e-12
    assert float(data["sine"]) == pytest.approx(np.sin(angle))


def test_steps_without_their_rungs_are_named() -> None:
    rungs = {"mine": DenseCurvature(torch.eye(2))}
    with pytest.raises(DecompositionError, match="no step has both its rungs"):
        movements(rungs)
