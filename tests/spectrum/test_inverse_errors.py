"""Errors of the damped inverse against the dense formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from decomposition.chain import LATTICE, build_lattice
from decomposition.curvature import DenseCurvature
from decomposition.curvature.operator import Diagonalised
from decomposition.damping import POLICIES
from decomposition.spectrum.inverse_errors import InverseErrors, compare_inverses
from tests import cases

DAMPINGS, THEIRS = [1e-3, 0.05, 2.0], [2e-3, 0.03, 1.0]


def errors(
    curvature: Diagonalised,
    reference: Diagonalised,
    dampings: list[float],
    leading: int,
    policy: str = "absolute",
    theirs: list[float] | None = None,
) -> InverseErrors:
    """Of one rung against the reference."""
    at = theirs or dampings
    (found,) = compare_inverses([curvature], reference, [dampings], at, leading, policy)
    return found.forward


def damped(matrix: np.ndarray, damping: float, policy: str) -> np.ndarray:
    mu, v = np.linalg.eigh(matrix)
    d = {
        "absolute": np.abs(mu) + damping,
        "signed": mu + damping,
        "clip": np.maximum(mu, 0) + damping,
        "shift": mu - min(mu.min(), 0) + damping,
    }[policy]
    return (v * d) @ v.T


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reference", ["hessian", "ggn"])
@pytest.mark.parametrize("rung", LATTICE)
def test_every_rung_against_dense_numpy(rung: str, reference: str, policy: str) -> None:
    lattice = build_lattice(cases.gelu())
    c, r = lattice[rung], lattice[reference]
    found = errors(c, r, DAMPINGS, 3, policy, THEIRS)
    for i, (mine, theirs) in enumerate(zip(DAMPINGS, THEIRS, strict=True)):
        c_damped = damped(c.dense().numpy(), mine, policy)
        r_damped = damped(r.dense().numpy(), theirs, policy)
        c_inverse, r_inverse = np.linalg.inv(c_damped), np.linalg.inv(r_damped)
        squared = np.linalg.norm(c_inverse - r_inverse) ** 2 / np.linalg.norm(r_inverse) ** 2
        assert found.squared[i] == pytest.approx(squared, rel=1e-9, abs=1e-12)
        values = np.linalg.eigvalsh(c_damped), np.linalg.eigvalsh(r_damped)
        if min(values[0].min(), values[1].min()) <= 0:
            assert np.isnan(found.stein[i])
            continue
        product = c_damped @ r_inverse
        stein = np.trace(product) - np.linalg.slogdet(product)[1] - len(product)
        assert found.stein[i] == pytest.approx(stein, rel=1e-9, abs=1e-9)
        assert found.stein[i] >= 0.0


@pytest.mark.parametrize("policy", ["absolute", "clip", "shift"])
@pytest.mark.parametrize("rung", LATTICE)
def test_a_rung_has_no_error_against_itself(rung: str, policy: str) -> None:
    lattice = build_lattice(cases.residual())
    found = errors(lattice[rung], DenseCurvature(lattice[rung].dense()), DAMPINGS, 3, policy)
    np.testing.assert_allclose(found.squared, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.stein, 0.0, atol=1e-9)
    assert found.subspace_overlap == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("rung", LATTICE)
def test_subspace_overlap_by_brute_force(rung: str) -> None:
    lattice = build_lattice(cases.gelu())
    k = 4
    found = errors(lattice[rung], lattice["hessian"], [0.1], k).subspace_overlap
    tops = []
    for name in (rung, "hessian"):
        mu, v = np.linalg.eigh(lattice[name].dense().numpy())
        tops.append(v[:, np.argsort(-np.abs(mu))[:k]])
    assert found == pytest.approx(np.linalg.norm(tops[0].T @ tops[1]) ** 2 / k, rel=1e-9)
    assert 0.0 <= found <= 1.0 + 1e-12
