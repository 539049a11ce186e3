"""Spectra whose answer can be written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from decomposition.chain import build_lattice
from decomposition.curvature import EigenpairCurvature
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.spectrum.measure import exact_spectrum
from decomposition.spectrum.mismatch import kronecker_values
from decomposition.spectrum.scopes import spectra_of
from decomposition.spectrum.summary import effective_dimensions, outliers, summary
from decomposition.spectrum.tables import by_rank, eigenvalue_table
from tests.cases import linear_regression


def one(values: list[float]) -> dict:
    return {"whole": {"mine": exact_spectrum(np.array(values))}}


def value(measures: dict, quantity: str) -> float:
    return float(summary(measures)["value"].sel(quantity=quantity).squeeze())


def test_linear_regression_has_the_spectrum_of_the_input_covariance() -> None:
    """With ℓ the mean over C outputs, H = (2/C) I_C ⊗ XᵀX/N with a 1 appended to X."""
    problem = linear_regression()
    x = problem.train[0].numpy()
    x = np.hstack([x, np.ones((len(x), 1))])
    outputs = problem.blocks[0].d_out
    expected = np.repeat(np.linalg.eigvalsh(x.T @ x / len(x)), outputs) * 2.0 / outputs
    for spectrum in spectra_of(build_lattice(problem))["whole"].values():
        np.testing.assert_allclose(spectrum.measure.eigenvalues(), expected, rtol=1e-8)


def test_a_diagonal_model_has_the_squared_inputs_as_its_spectrum() -> None:
    """One output per one-hot example: every weight is seen by one example alone."""
    scale = torch.tensor([1.0, 2.0, 3.0, 5.0])
    model = nn.Sequential(nn.Linear(4, 1, bias=False)).double()
    data = (torch.diag(scale).double(), torch.zeros(4, 1).double())
    problem = Problem(model, nn.MSELoss(), data, data, allow_query_in_train=True)
    expected = 2.0 * np.array([1.0, 4.0, 9.0, 25.0]) / 4.0
    for name in ("hessian", "ggn"):
        found = spectra_of({name: build_lattice(problem)[name]})["whole"][name]
        np.testing.assert_allclose(found.measure.eigenvalues(), expected, rtol=1e-12)


def test_kfac_has_the_products_of_its_factors_eigenvalues() -> None:
    """Linear regression: S = (2/C) I, A = XᵀX/N, both written with NumPy alone."""
    problem = linear_regression()
    block = problem.blocks[0]
    x = np.hstack([problem.train[0].numpy(), np.ones((problem.num_examples, 1))])
    a = np.linalg.eigvalsh(x.T @ x / len(x))
    s = np.full(block.d_out, 2.0 / block.d_out)
    found = kronecker_values(build_lattice(problem))[block.name]["product"].values
    np.testing.assert_allclose(np.sort(found), np.sort(np.outer(s, a).ravel()), rtol=1e-8)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("trace", 4.0),
        ("frobenius", np.sqrt(18.0)),
        ("nuclear", 6.0),
        ("spectral", 4.0),
        ("numerical_rank", 3.0),
        ("stable_rank", 18.0 / 16.0),
        ("negative_count", 1.0),
        ("negative_share", 1.0 / 6.0),
    ],
)
def test_summaries_of_a_known_spectrum(quantity: str, expected: float) -> None:
    values = [-1.0, 0.0, 1.0, 4.0]
    assert value(one(values), quantity) == pytest.approx(expected, rel=1e-12)


def test_the_effective_rank_of_equal_eigenvalues_is_their_number() -> None:
    assert value(one([0.0, 0.0, -2.0, 2.0, 2.0]), "effective_rank") == pytest.approx(3.0)


def test_the_effective_dimension_of_equal_eigenvalues() -> None:
    found = effective_dimensions(one([3.0, 3.0, -3.0]), [1.0, 3.0])["dimension"].squeeze()
    np.testing.assert_allclose(found, [9.0 / 4.0, 1.5])


def test_ranks_go_by_magnitude_and_keep_the_sign() -> None:
    data = by_rank(eigenvalue_table(one([-3.0, 1.0, 0.0, 2.0]))).squeeze()
    np.testing.assert_array_equal(data["magnitude"], [3.0, 2.0, 1.0, 0.0])
    np.testing.assert_array_equal(data["sign"], [-1, 1, 1, 0])
    np.testing.assert_allclose(data["cumulative"], [0.5, 5.0 / 6.0, 1.0, 1.0])


def test_planted_outliers_are_counted() -> None:
    bulk = np.geomspace(1e-3, 1e-2, 60).tolist()
    data = outliers(one([*bulk, 1.0, 1.2, 1.5]), classes=3)
    assert int(data["count"].squeeze()) == 3
    assert float(data["gap"].squeeze()) == pytest.approx(100.0)


def test_trace_and_frobenius_norm_are_those_of_the_matrix(problem: Problem) -> None:
    rungs = build_lattice(problem)
    data = summary(spectra_of(rungs))["value"].sel(scope="whole")
    for name, curvature in rungs.items():
        matrix = curvature.dense()
        found = data.sel(rung=name)
        scale = float(torch.linalg.matrix_norm(matrix))
        assert float(found.sel(quantity="trace")) == pytest.approx(
            float(matrix.trace()), abs=1e-10 * scale
        )
        assert float(found.sel(quantity="frobenius")) == pytest.approx(scale, rel=1e-10)


def test_blocks_hold_the_block_diagonal_rungs_spectrum(problem: Problem) -> None:
    measures = spectra_of({"kfac": build_lattice(problem)["kfac"]})
    parts = [
        row["kfac"].measure.eigenvalues() for scope, row in measures.items() if scope != "whole"
    ]
    np.testing.assert_allclose(
        np.sort(np.concatenate(parts)), measures["whole"]["kfac"].measure.eigenvalues(), atol=1e-14
    )


def test_the_number_of_negative_eigenvalues_shows_in_an_indefinite_rung() -> None:
    vectors = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    values = torch.tensor([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0])
    rung = EigenpairCurvature(values, vectors.double())
    assert value(spectra_of({"mine": rung}), "negative_count") == 2.0


def test_a_softmax_networks_ggn_has_at_most_n_times_c_minus_one_directions() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([0, 1, 2])
    model = mlp((4, 5, 3), nn.Tanh, 0).double()
    problem = Problem(model, nn.CrossEntropyLoss(), (x, labels), (x + 1, labels))
    measures = spectra_of({"ggn": build_lattice(problem)["ggn"]})
    assert value({"whole": measures["whole"]}, "numerical_rank") <= 3 * (3 - 1)
