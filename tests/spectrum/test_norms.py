"""Norms of differences: exact where eigenvalues are cheap, a bound with its residual elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature import Curvature, DenseCurvature
from decomposition.problem import Problem
from decomposition.spectrum import norms
from decomposition.spectrum.norms import difference_norms, known_norms, norms_from
from decomposition.spectrum.quadrature import Estimation, ends
from tests import cases, general

OTHERS = ("ggn", "block_ggn", "ekfac", "kfac")
SPECTRA = {
    "decaying": lambda n, rng: rng.permuted([-1.0, 1.0] * (n // 2)) / (1 + np.arange(n)) ** 1.0,
    "exponential": lambda n, rng: rng.choice([-1.0, 1.0], n) * 0.97 ** np.arange(n),
    "flat": lambda n, rng: rng.uniform(-1.0, 1.0, n),
    "low rank": lambda n, rng: np.r_[rng.normal(size=20), np.zeros(n - 20)],
    "one large": lambda n, rng: np.r_[50.0, rng.normal(size=n - 1)],
    "definite": lambda n, rng: rng.chisquare(1, n),
    "repeated": lambda n, rng: np.r_[np.full(n // 2, 2.0), np.full(n - n // 2, -1.0)],
    "zero": lambda n, rng: np.zeros(n),
}


def planted(kind: str, n: int, seed: int) -> tuple[DenseCurvature, np.ndarray]:
    rng = np.random.default_rng((n, seed))
    mu = SPECTRA[kind](n, rng)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    c = (q * mu) @ q.T
    return DenseCurvature(torch.from_numpy((c + c.T) / 2)), mu


def nothing(n: int) -> DenseCurvature:
    return DenseCurvature(torch.zeros(n, n, dtype=torch.float64))


@pytest.mark.parametrize("kind", SPECTRA)
def test_known_norms_are_those_of_numpy(kind: str) -> None:
    c, mu = planted(kind, 40, 0)
    found = known_norms(c, nothing(40))
    assert found is not None
    assert found.spectral == pytest.approx(np.abs(mu).max(), rel=1e-12, abs=1e-12)
    assert found.nuclear == pytest.approx(np.abs(mu).sum(), rel=1e-12, abs=1e-12)
    assert found.spectral.error == 0.0


@pytest.mark.parametrize("kind", SPECTRA)
def test_iterated_norms_are_within_their_residual(kind: str) -> None:
    for seed in range(3):
        c, mu = planted(kind, 300, seed)
        norm = difference_norms(c, {"nothing": nothing(300)}, 40, seed=seed)["nothing"]
        largest = np.abs(mu).max()
        assert abs(norm - largest) <= norm.error + 1e-9 * largest
        assert norm.error <= 0.02 * largest


@pytest.fixture(scope="module", params=["tanh", "cnn"])
def chain(request: pytest.FixtureRequest) -> dict[str, Curvature]:
    problem: Problem = {"tanh": cases.tanh, "cnn": general.cnn}[request.param]()
    return build_chain(problem)


def exact(chain: dict[str, Curvature], name: str, reference: str = "hessian") -> np.ndarray:
    difference = chain[reference].dense() - chain[name].dense()
    return torch.linalg.eigvalsh(difference).abs().numpy()


@pytest.mark.parametrize("reference", ["hessian", "block_ggn", "ekfac"])
def test_every_form_of_a_difference_has_the_norms_of_its_matrix(chain, reference: str) -> None:
    """Formed, block by block, or in a common basis."""
    others = {name: chain[name] for name in OTHERS if name != reference}
    for name, found in norms_from(chain[reference], others, 20).items():
        values = exact(chain, name, reference)
        assert found.spectral == pytest.approx(values.max(), rel=1e-8, abs=1e-12)
        assert found.nuclear == pytest.approx(values.sum(), rel=1e-8, abs=1e-10)


def test_a_difference_too_large_to_decompose_keeps_its_spectral_norm_alone(
    chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "EXACT_SIZE", 5)
    found = norms_from(chain["hessian"], {"kfac": chain["kfac"]}, 30)["kfac"]
    assert found.spectral == pytest.approx(exact(chain, "kfac").max(), rel=1e-3)
    assert np.isnan(found.nuclear)
    common = norms_from(chain["ekfac"], {"kfac": chain["kfac"]}, 30)["kfac"]
    assert common.spectral.error == 0.0
    assert np.isfinite(common.nuclear)


@pytest.mark.parametrize("steps", [2, 4, 12])
def test_the_norm_is_a_lower_bound_with_an_eigenvalue_within_its_residual(chain, steps) -> None:
    known = ends(chain["hessian"], Estimation(ends=5, end_steps=12, tolerance=1e-2))
    others = {name: chain[name] for name in OTHERS}
    found = difference_norms(chain["hessian"], others, steps, known)
    for name, norm in found.items():
        values = exact(chain, name)
        assert norm <= values.max() * (1 + 1e-10)
        assert np.abs(values - norm).min() <= norm.error + 1e-10 * values.max()
        assert norm >= (0.99 if steps == 12 else 0.7) * values.max()


def test_candidates_do_not_depend_on_each_other(chain) -> None:
    both = difference_norms(chain["hessian"], {n: chain[n] for n in ("kfac", "ggn")}, 5)
    alone = difference_norms(chain["hessian"], {"kfac": chain["kfac"]}, 5)
    assert both["kfac"] == pytest.approx(alone["kfac"], rel=0.05)
    assert difference_norms(chain["hessian"], {}, 5) == {}


def test_equal_curvatures_differ_by_nothing(chain) -> None:
    found = difference_norms(chain["ggn"], {"same": chain["ggn"]}, 3)["same"]
    assert found == 0.0
    assert found.error == 0.0
