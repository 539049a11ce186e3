"""Spectral and nuclear norms: exact below a size, estimated within their stated errors above."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.spectrum.norms import norms

SPECTRA = {
    "decaying": lambda n, rng: rng.permuted([-1.0, 1.0] * (n // 2)) / (1 + np.arange(n)) ** 1.0,
    "exponential": lambda n, rng: rng.choice([-1.0, 1.0], n) * 0.97 ** np.arange(n),
    "flat": lambda n, rng: rng.uniform(-1.0, 1.0, n),
    "low rank": lambda n, rng: np.r_[rng.normal(size=20), np.zeros(n - 20)],
    "one large": lambda n, rng: np.r_[50.0, rng.normal(size=n - 1)],
    "definite": lambda n, rng: rng.chisquare(1, n),
    "repeated": lambda n, rng: np.r_[np.full(n // 2, 2.0), np.full(n - n // 2, -1.0)],
}


def matrix(kind: str, n: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng((n, seed))
    mu = SPECTRA[kind](n, rng)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    c = (q * mu) @ q.T
    return torch.from_numpy((c + c.T) / 2), mu


@pytest.mark.parametrize("kind", SPECTRA)
def test_exact_norms_are_those_of_numpy(kind: str) -> None:
    c, _ = matrix(kind, 40, 0)
    found = norms(c)
    assert found.spectral == pytest.approx(np.linalg.norm(c.numpy(), 2), rel=1e-12)
    assert found.nuclear == pytest.approx(np.linalg.norm(c.numpy(), "nuc"), rel=1e-12)
    assert (found.spectral_error, found.nuclear_error) == (0.0, 0.0)


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("n", [1, 5, 100])
def test_small_matrices_survive_the_stochastic_path(kind: str, n: int) -> None:
    """Fewer rows than start vectors: everything is found exactly."""
    n = max(n, 22 if kind == "low rank" else 2 if kind == "decaying" else n)
    c, mu = matrix(kind, n + n % 2, 1)
    found = norms(c, exact_size=0)
    assert found.spectral == pytest.approx(np.abs(mu).max(), rel=1e-6)
    assert found.nuclear == pytest.approx(np.abs(mu).sum(), rel=1e-4)


@pytest.mark.parametrize("kind", SPECTRA)
def test_stochastic_norms_are_within_their_errors(kind: str) -> None:
    """The nuclear norm to 5 standard errors: with a dozen probes these are Student's."""
    for seed in range(4):
        c, mu = matrix(kind, 300, seed)
        found = norms(c, seed=seed, exact_size=0)
        spectral, nuclear = np.abs(mu).max(), np.abs(mu).sum()
        assert abs(found.spectral - spectral) <= found.spectral_error + 1e-9 * spectral
        assert found.spectral_error < 0.02 * spectral
        assert abs(found.nuclear - nuclear) <= 5.0 * found.nuclear_error
        assert found.nuclear_error < 0.1 * nuclear


def test_a_zero_matrix_has_zero_norms() -> None:
    found = norms(torch.zeros(300, 300, dtype=torch.float64), exact_size=0)
    assert (found.spectral, found.nuclear) == (0.0, 0.0)


def test_the_estimate_is_seeded() -> None:
    c, _ = matrix("flat", 300, 0)
    one, same, other = (norms(c, seed=s, exact_size=0) for s in (1, 1, 2))
    assert one == same != other
