"""Spectral norms of differences from few products, against the eigenvalues of the difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature import Curvature
from decomposition.problem import Problem
from decomposition.spectrum.difference import difference_norms
from decomposition.spectrum.large import Estimation, ends
from tests import cases, general

OTHERS = ("ggn", "block_ggn", "ekfac", "kfac")


@pytest.fixture(scope="module", params=["tanh", "cnn"])
def chain(request: pytest.FixtureRequest) -> dict[str, Curvature]:
    problem: Problem = {"tanh": cases.tanh, "cnn": general.cnn}[request.param]()
    return build_chain(problem)


def exact(chain: dict[str, Curvature], name: str) -> np.ndarray:
    difference = chain["hessian"].dense() - chain[name].dense()
    return torch.linalg.eigvalsh(difference).abs().numpy()


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
