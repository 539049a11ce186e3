"""Overlap of eigenvalues and of leading subspaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decomposition.chain import LATTICE, build_lattice
from decomposition.spectrum import subspaces
from decomposition.spectrum.subspaces import descending, eigenvalue_overlap, squared_cosines
from tests import cases


def vectors(n: int) -> st.SearchStrategy[torch.Tensor]:
    entries = st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n)
    return entries.map(lambda values: torch.tensor(values, dtype=torch.float64))


pairs = st.integers(1, 12).flatmap(lambda n: st.tuples(vectors(n), vectors(n)))


@given(pairs)
def test_eigenvalue_overlap_is_symmetric_and_within_zero_and_one(pair) -> None:
    mu, nu = pair
    found = eigenvalue_overlap(mu, nu)
    assert 0.0 <= found <= 1.0
    assert eigenvalue_overlap(nu, mu) == pytest.approx(found, abs=1e-12)
    assert eigenvalue_overlap(mu, mu.flip(0)) == 1.0


def test_eigenvalue_overlap_by_hand() -> None:
    mu, nu = torch.tensor([3.0, 1.0]).double(), torch.tensor([0.0, 2.0]).double()
    assert eigenvalue_overlap(mu, nu) == pytest.approx(1 - 2 / 6)
    assert eigenvalue_overlap(mu, -mu) == 0.0
    assert eigenvalue_overlap(0 * mu, 0 * mu) == 1.0


def test_leading_is_by_magnitude() -> None:
    assert descending(torch.tensor([1.0, -3.0, 2.0, 0.0]))[:2].tolist() == [1, 2]


@pytest.mark.parametrize("rung", LATTICE)
def test_squared_cosines_by_brute_force(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In panels that do not divide P; rows and columns sum to one."""
    monkeypatch.setattr(subspaces, "PANEL", 7)
    lattice = build_lattice(cases.gelu())
    curvature, reference = lattice[rung], lattice["hessian"]
    eye = torch.eye(curvature.size, dtype=torch.float64)
    found = torch.cat([w for _, w in squared_cosines(curvature, reference)], 1)
    expected = (curvature.from_basis(eye).T @ reference.from_basis(eye)) ** 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.sum(0), 1.0, atol=1e-10)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-10)
