"""CUDA gives the CPU's numbers: float64 to 1e-9 of the largest, float32 where it is said.

Run with ``pytest -m gpu tests/gpu``; without a CUDA device every test here is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from decomposition import Recipe, Settings, run
from decomposition.chain import build_lattice
from decomposition.chain.cost import Rates
from decomposition.chain.plan import plan_chain
from decomposition.curvature import Curvature
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.estimate import squared_norm
from decomposition.curvature.graphs import Graphs
from decomposition.curvature.jacobian import SweptRows
from decomposition.curvature.low_rank import leading_eigenpairs
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.operator import Diagonalised
from decomposition.curvature.products import ggn_product, hessian_product
from decomposition.device import (
    DeviceError,
    chunk_bytes,
    describe,
    free_memory_on,
    full_precision,
    resolve_device,
)
from decomposition.linalg import eigh
from decomposition.memory import shrinking
from decomposition.plan_command import plan_text
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.retraining.bank import retrain_bank
from decomposition.retraining.plan import BankPlan
from decomposition.scores.gradients import StreamedGradients, influence_scores
from decomposition.spectrum.command import Inspection
from decomposition.spectrum.inspect import lattice
from decomposition.spectrum.norms import difference_norms, known_norms
from decomposition.spectrum.quadrature import Estimation
from decomposition.spectrum.scopes import spectra_of
from decomposition.targets.pbrf import proximal_responses
from tests import cases, general

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

FLOAT64 = 1e-9
"""Largest difference of float64 results, relative to the largest entry."""
TRAINED = 1e-6
"""The same after training in float64, where every step adds its rounding."""
FLOAT32 = 2e-3
"""The same after training in float32."""
MIB = 2**20
CUDA = "cuda"

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "plain": cases.residual,
    "regression": cases.tanh_regression,
    "cnn": general.cnn,
    "strided": general.conv2d_strided,
    "grouped": general.conv_grouped,
    "attention": general.attention,
    "tied": general.tied,
    "frozen": general.frozen,
    "named inputs": general.named_inputs,
}


def close(there: Tensor, here: Tensor, tolerance: float = FLOAT64) -> None:
    assert there.device.type == CUDA
    gap = float((there.cpu() - here).abs().max())
    assert gap <= tolerance * float(here.abs().max()), f"they differ by {gap:.3g}"


@pytest.fixture(params=list(PROBLEMS), scope="module")
def here(request: pytest.FixtureRequest) -> tuple[Problem, dict[str, Curvature]]:
    problem = PROBLEMS[request.param]()
    return problem, build_lattice(problem)


@pytest.fixture
def there(
    here: tuple[Problem, dict[str, Curvature]],
) -> tuple[Problem, dict[str, Curvature]]:
    problem = here[0].to(CUDA)
    assert problem.blocks == here[0].blocks
    return problem, build_lattice(problem)


Built = tuple[Problem, dict[str, Curvature]]


def test_every_rung_is_the_same_matrix(here: Built, there: Built) -> None:
    for rung, curvature in there[1].items():
        close(curvature.dense(), here[1][rung].dense())
        assert curvature.trace() == pytest.approx(here[1][rung].trace(), rel=FLOAT64)


def test_eigenvalues_and_their_decomposition(here: Built, there: Built) -> None:
    for rung, curvature in there[1].items():
        close(curvature.eigenvalues(), here[1][rung].eigenvalues())
    matrix = there[1]["hessian"].dense()
    values, vectors = eigh(matrix)
    close(vectors * values @ vectors.T, matrix.cpu())


def test_products_and_solves_go_back_to_where_the_vector_was(here: Built, there: Built) -> None:
    v = torch.randn(
        here[0].num_parameters, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    for rung, curvature in there[1].items():
        exact = here[1][rung]
        for found, expected in (
            (curvature.matvec(v), exact.matvec(v)),
            (curvature.solve(v, 0.1), exact.solve(v, 0.1)),
        ):
            assert found.device.type == "cpu"
            torch.testing.assert_close(
                found, expected, rtol=0, atol=FLOAT64 * float(expected.abs().max())
            )
        close(curvature.solve(v.cuda(), 0.1), exact.solve(v, 0.1))


def test_scores(here: Built, there: Built) -> None:
    for rung, curvature in there[1].items():
        expected = influence_scores(here[0], here[1][rung], 0.1)
        close(influence_scores(there[0], curvature, 0.1), expected)


def test_names_of_devices() -> None:
    device = resolve_device(CUDA)
    assert device.index == torch.cuda.current_device()
    assert torch.cuda.get_device_name(device) in describe(device)
    with pytest.raises(DeviceError, match=r"cuda:99 is not available: there are cpu, cuda:0"):
        resolve_device("cuda:99")


def test_a_problem_goes_there_and_back() -> None:
    problem = general.tied()
    again = problem.to(CUDA).to("cpu")
    assert again.trainable == problem.trainable
    torch.testing.assert_close(again.theta(), problem.theta(), rtol=0, atol=0)


def test_float32_products_are_not_rounded_to_tf32() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(512, 512, generator=generator, dtype=torch.float64).cuda()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            product = a.float() @ a.float()
    finally:
        torch.set_float32_matmul_precision(before)
    exact = a @ a
    error = torch.linalg.norm(product.double() - exact) / torch.linalg.norm(exact)
    assert float(error) < 2e-6  # TF32: about 3e-4


def test_norms_of_differences() -> None:
    here, there = (build_lattice(cases.residual().to(d)) for d in ("cpu", CUDA))
    exact = known_norms(here["hessian"], here["ggn"])
    found = known_norms(there["hessian"], there["ggn"])
    iterated = difference_norms(there["hessian"], {"ggn": there["ggn"]}, 40)["ggn"]
    assert exact is not None
    assert found is not None
    assert found.spectral == pytest.approx(exact.spectral, rel=1e-9)
    assert found.nuclear == pytest.approx(exact.nuclear, rel=1e-9)
    assert abs(iterated - exact.spectral) <= iterated.error + 1e-9


LARGE = {
    "cnn": general.cnn,
    "strided": general.conv2d_strided,
    "attention": general.attention,
    "plain": lambda: cases.classification(mlp((4, 8, 3), nn.GELU, 0), n=5),
}


@pytest.fixture(params=list(LARGE), scope="module")
def large(request: pytest.FixtureRequest) -> tuple[Problem, Problem]:
    problem = LARGE[request.param]()
    return problem, problem.to(CUDA)


def test_products_and_rows_of_large_models(large: tuple[Problem, Problem]) -> None:
    """By what is free there, not by what is chosen for a cache."""
    here, there = large
    v = general.normal(here.num_parameters, 40)
    u = general.normal(here.num_examples * here.num_outputs, 3)
    for product in (hessian_product, ggn_product):
        close(product(there)(v.cuda()), product(here)(v))
        close(product(there, torch.float32)(v.cuda()), product(here)(v), FLOAT32)
    rows, found = (SweptRows(Graphs(p)) for p in large)
    close(found.forward(v.cuda()), rows.forward(v))
    close(found.transposed(u.cuda()), rows.transposed(u))


def test_dual_rungs(large: tuple[Problem, Problem]) -> None:
    v = general.normal(large[0].num_parameters, 3)
    for exact, found in zip(*(dual_rungs(p) for p in large), strict=True):
        close(found.matvec(v.cuda()), exact.matvec(v))
        close(found.eigenvalues(), exact.eigenvalues())
        close(found.solve(v.cuda(), 0.1), exact.solve(v, 0.1))


@pytest.mark.parametrize("policy", ["signed", "absolute"])
def test_matrix_free_solves(large: tuple[Problem, Problem], policy: str) -> None:
    v = general.normal(large[0].num_parameters, 3)
    exact, found = (
        MatrixFreeCurvature(hessian_product(p), tolerance=1e-10, krylov_steps=p.num_parameters)
        for p in large
    )
    close(found.solve(v.cuda(), 1.0, policy), exact.solve(v, 1.0, policy), 1e-6)


def test_leading_eigenpairs(large: tuple[Problem, Problem]) -> None:
    v = general.normal(large[0].num_parameters, 3)
    exact, found = (leading_eigenpairs(ggn_product(p), 3) for p in large)
    close(found.matvec(v.cuda()), exact.matvec(v), 1e-6)


def test_scores_of_large_models(large: tuple[Problem, Problem]) -> None:
    exact, found = (
        StreamedGradients(p).scores(
            MatrixFreeCurvature(ggn_product(p), definite=True, tolerance=1e-10), 0.1
        )
        for p in large
    )
    close(found, exact, 1e-6)
    v = general.normal(large[0].num_parameters, 1)
    close(StreamedGradients(large[1]).along(v.cuda()), StreamedGradients(large[0]).along(v))


def test_spectra_of_large_models(large: tuple[Problem, Problem]) -> None:
    plan = Estimation(ends=2, probes=3, steps=8)
    forms = [Inspection(method="estimate").plan(large[0])] * 2
    exact, found = (
        spectra_of(lattice(p, (), form), problem=p, plan=plan)
        for p, form in zip(large, forms, strict=True)
    )
    for scope, row in exact.items():
        for rung, spectrum in row.items():
            measure, other = spectrum.measure, found[scope][rung].measure
            largest = abs(measure.nodes).max()
            np.testing.assert_allclose(other.nodes, measure.nodes, atol=1e-6 * largest)
            trace = other.nodes * other.weights
            expected = (measure.nodes * measure.weights).sum()
            assert trace.sum() == pytest.approx(expected, rel=1e-6)


def test_estimated_norms(large: tuple[Problem, Problem]) -> None:
    exact, found = (squared_norm(ggn_product(p), 8) for p in large)
    assert found == pytest.approx(exact, rel=1e-6)
    assert found.error == pytest.approx(exact.error, rel=1e-3, abs=1e-9 * exact)


def test_a_plan_knows_the_device() -> None:
    there = general.cnn().to(CUDA)
    rates = Rates.measure(there)
    assert 0 < rates.product < 1e-9  # seconds per multiply-add: the work is done when it is timed
    assert min(rates.eigh, rates.sweep) > 0
    total = torch.cuda.get_device_properties(0).total_memory
    assert 0 < plan_chain(there).budget < total
    assert torch.cuda.get_device_name(0) in plan_text(there)


def test_proximal_responses() -> None:
    problem = cases.tanh().trained()

    def outputs(one: Problem) -> np.ndarray:
        ggn = build_lattice(one)["ggn"]
        assert isinstance(ggn, Diagonalised)
        return proximal_responses(one, ggn, 1.0, np.arange(3)).outputs

    np.testing.assert_allclose(outputs(problem.to(CUDA)), outputs(problem), rtol=0, atol=1e-6)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """512 MiB beyond what is in use."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, (torch.cuda.memory_reserved() + 512 * MIB) / total)
    )
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory")
def test_out_of_memory_becomes_a_smaller_chunk() -> None:
    asked: list[int] = []

    def work(rows: slice) -> float:
        asked.append(rows.stop - rows.start)
        return float(torch.ones(asked[-1], 64 * MIB // 8, dtype=torch.float64, device=CUDA).sum())

    assert sum(shrinking(work, 32, 32)) == 32 * 64 * MIB / 8
    assert asked[0] == 32
    assert asked[-1] < 8


@pytest.fixture(scope="module")
def big() -> Problem:
    """40 parameters and 131,072 activations of every example: 16 columns of all take 10 GiB."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(256),
            nn.Flatten(),
            nn.Linear(2, 3),
        )

    return general.study(build, general.normal(40, 1, 256, 256), n=32)


@pytest.mark.usefixtures("little_memory")
def test_a_product_in_512_mib_is_the_whole_one(
    big: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = general.normal(big.num_parameters, 16)
    there = big.to(CUDA)
    monkeypatch.setattr("decomposition.curvature.graphs.chunk_bytes", lambda *_: 2**40)
    close(hessian_product(there)(v.cuda()), hessian_product(big)(v))


@pytest.mark.usefixtures("little_memory")
def test_a_batch_in_512_mib_is_the_whole_one(big: Problem) -> None:
    recipe = Recipe(lr=0.1, epochs=2, batch_size=32, dtype="float64")
    wide = replace(big, recipe=recipe)
    close(wide.to(CUDA).trained().theta(), wide.trained().theta(), TRAINED)


def test_chunks_take_a_part_of_free_memory() -> None:
    free, _ = torch.cuda.mem_get_info()
    assert 0 < chunk_bytes(torch.device(CUDA, 0), 1) <= free
    assert free <= free_memory_on(torch.device(CUDA, 0))


SETTINGS = Settings(masks=24, second_order_masks=6, resamples=200, damping_points=5)


def untrained(dtype: str, case: str = "plain") -> Problem:
    problem = cases.tanh() if case == "plain" else general.cnn()
    recipe = Recipe(lr=0.1, epochs=5, batch_size=4, dtype=dtype)
    return Problem(problem.model, problem.loss, problem.train, problem.query, recipe=recipe)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", TRAINED), ("float32", FLOAT32)])
@pytest.mark.parametrize("randomness", ["shared", "independent"])
@pytest.mark.parametrize("case", ["plain", "cnn"])
def test_retrained_models(dtype: str, tolerance: float, randomness: str, case: str) -> None:
    plan = BankPlan(masks=6, repeats=2, second_order_masks=2, randomness=randomness)  # type: ignore[arg-type]
    problem = untrained(dtype, case)
    banks = [retrain_bank(problem.to(d).trained(), plan, progress=False) for d in ("cpu", CUDA)]
    for name in ("outputs", "base_outputs"):
        expected, found = (getattr(bank, name) for bank in banks)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("case", ["plain", "cnn"])
def test_a_whole_large_run(case: str) -> None:
    found, expected = (
        run(untrained("float64", case), settings=SETTINGS, device=device, progress=False, memory=0)
        for device in (CUDA, "cpu")
    )
    assert str(found.attrs["device"]).startswith("cuda:")
    assert set(found.groups) == set(expected.groups)
    a, b = (tree["bank"]["outputs"].values for tree in (found, expected))
    np.testing.assert_allclose(a, b, rtol=0, atol=TRAINED * np.abs(b).max())
    a, b = (tree["attribution"]["lds_mean"].values for tree in (found, expected))
    np.testing.assert_allclose(a, b, rtol=0, atol=0.05)  # ranks, and solves to 1e-6


@pytest.mark.parametrize("case", ["plain", "cnn"])
def test_a_whole_run(case: str) -> None:
    found, expected = (
        run(untrained("float64", case), settings=SETTINGS, device=device, progress=False)
        for device in (CUDA, "cpu")
    )
    assert str(found.attrs["device"]).startswith("cuda:")

    def same(group: str, name: str, tolerance: float) -> None:
        a, b = (np.asarray(tree[group][name], float) for tree in (found, expected))
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.nanmax(np.abs(b)))

    same("bank", "outputs", TRAINED)
    same("spectrum", "eigenvalues", TRAINED)
    same("attribution", "lds_mean", 0.05)  # ranks: a tie may fall either way
    errors: xr.Dataset = expected["spectral_error"].to_dataset()
    for metric in ("relative_frobenius", "damped_inverse", "stein"):
        a, b = (tree["spectral_error"]["value"].sel(metric=metric) for tree in (found, expected))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
    assert set(errors.dims) == set(found["spectral_error"].to_dataset().dims)
