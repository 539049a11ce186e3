"""Eigendecompositions by stages: what LAPACK's driver gives, without the rows that are zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from decomposition import linalg
from decomposition.linalg import add_squares, eigh

STAGED = 512
"""Side from which these tests call the stages."""


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linalg, "STAGED", STAGED)


def symmetric(size: int, seed: int = 0) -> Tensor:
    half = np.random.default_rng(seed).standard_normal((size, size))
    return torch.from_numpy(half + half.T)


def without(matrix: Tensor, dead: slice) -> Tensor:
    out = matrix.clone()
    out[dead] = 0.0
    out[:, dead] = 0.0
    return out


LARGE = STAGED + 70  # more than one panel of reflections, and a last one that is narrower
MATRICES = {
    "small": symmetric(40),
    "staged": symmetric(LARGE),
    "small with dead rows": without(symmetric(40), slice(3, None, 7)),
    "staged with dead rows": without(symmetric(LARGE + 100), slice(3, None, 9)),
    "diagonal": torch.diag(torch.arange(-9.0, LARGE - 9.0, dtype=torch.float64)),
    "rank one": torch.ones(LARGE, LARGE, dtype=torch.float64),
    "tiny entries": 1e-200 * symmetric(LARGE),
    "huge entries": 1e200 * symmetric(LARGE),
    "zero": torch.zeros(LARGE, LARGE, dtype=torch.float64),
}


@pytest.mark.parametrize("name", MATRICES)
def test_eigenpairs_are_those_of_the_matrix(name: str) -> None:
    matrix = MATRICES[name]
    scale = float(matrix.abs().max()) or 1.0
    values, vectors = eigh(matrix)
    identity = torch.eye(len(matrix), dtype=torch.float64)
    assert bool((values.diff() >= 0).all())
    torch.testing.assert_close(vectors.T @ vectors, identity, rtol=0, atol=1e-13)
    image, expected = (matrix / scale) @ vectors, vectors * (values / scale)
    # the backward error of LAPACK's drivers, in ε ‖A‖₂: 5 at most, 18 of rank one on one thread
    bound = 32 * torch.finfo(matrix.dtype).eps * float((values / scale).abs().max())
    torch.testing.assert_close(image, expected, rtol=0, atol=bound)


def test_a_row_of_zeros_is_an_eigenvector_and_its_eigenvalue_exactly_zero() -> None:
    matrix = MATRICES["staged with dead rows"]
    dead = torch.nonzero(~matrix.any(1)).flatten()
    values, vectors = eigh(matrix)
    assert int((values == 0).sum()) == len(dead)
    null = vectors[:, values == 0]
    assert torch.equal(null.nonzero()[:, 0], dead)
    assert torch.equal(null[dead].abs(), torch.eye(len(dead), dtype=torch.float64))


def test_a_matrix_is_left_as_it_is() -> None:
    matrix = MATRICES["staged"].clone()
    eigh(matrix)
    assert torch.equal(matrix, MATRICES["staged"])


def test_weighted_squares_are_added_on_both_sides_of_the_diagonal() -> None:
    matrix, vectors = symmetric(LARGE), symmetric(LARGE, seed=1)[:, :30]
    weights = torch.linspace(-1.0, 2.0, 30, dtype=torch.float64)
    expected = matrix + (vectors * weights) @ vectors.T
    found = matrix.clone()
    add_squares(found, vectors, weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
