"""CUDA gives the CPU's numbers: float64 to 1e-9 of the largest, float32 where it is said.

Run with ``pytest -m gpu tests/gpu``; without a CUDA device every test here is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from decomposition import Recipe, Settings, run
from decomposition.attribution.influence import influence_scores
from decomposition.chain import build_lattice
from decomposition.curvature import Curvature
from decomposition.device import (
    DeviceError,
    chunk_bytes,
    describe,
    full_precision,
    resolve_device,
    shrinking,
)
from decomposition.linalg import eigh
from decomposition.problem import Problem
from decomposition.retraining.bank import retrain_bank
from decomposition.retraining.plan import BankPlan
from decomposition.spectrum.norms import norms
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
        here[0].parameters, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
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


def test_sampled_norms_in_float32_stay_within_their_error() -> None:
    matrix = build_lattice(cases.residual())["hessian"].dense()
    exact, found = norms(matrix), norms(matrix.cuda(), exact_size=2)
    assert abs(found.spectral - exact.spectral) <= found.spectral_error + 1e-9
    assert abs(found.nuclear - exact.nuclear) <= 4 * found.nuclear_error + 1e-9


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


def test_chunks_take_a_part_of_free_memory() -> None:
    free, _ = torch.cuda.mem_get_info()
    assert 0 < chunk_bytes(torch.device(CUDA, 0), 1) <= free


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
