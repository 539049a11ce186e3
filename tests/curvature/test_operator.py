"""Curvatures in the hands of SciPy's solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, cg, eigsh

from decomposition import build_chain
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import ggn_product
from tests import cases


def test_it_is_the_symmetric_matrix(problem) -> None:
    for rung in build_chain(problem).values():
        operator, dense = rung.to_scipy(), rung.dense().numpy()
        assert isinstance(operator, LinearOperator)
        assert operator.shape == rung.shape == dense.shape
        assert operator.dtype == np.float64
        v = np.random.default_rng(0).normal(size=(len(dense), 2))
        close = {"rtol": 1e-9, "atol": 1e-11 * np.abs(dense).max() * len(dense)}
        np.testing.assert_allclose(operator @ v, dense @ v, **close)
        np.testing.assert_allclose(operator.matvec(v[:, 0]), dense @ v[:, 0], **close)
        np.testing.assert_allclose(operator.T @ v[:, :1], dense @ v[:, :1], **close)
        np.testing.assert_allclose(operator.rmatvec(v[:, 0]), dense @ v[:, 0], **close)


@pytest.mark.parametrize("form", ["dense", "matrix-free"])
def test_eigenvalues_and_solutions_by_scipy(form: str) -> None:
    problem = cases.gelu()
    exact = build_chain(problem)["ggn"]
    rung = exact if form == "dense" else MatrixFreeCurvature(ggn_product(problem), definite=True)
    found = eigsh(rung.to_scipy(), k=3, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), exact.eigenvalues()[-3:], rtol=1e-8)
    v = (exact @ torch.ones(exact.size)).numpy()
    damped = rung.to_scipy() + 0.1 * LinearOperator(rung.shape, lambda u: u, dtype=np.float64)
    x, failed = cg(damped, v, rtol=1e-10)
    assert failed == 0
    np.testing.assert_allclose(x, exact.solve(v, 0.1), rtol=1e-6, atol=1e-9)
