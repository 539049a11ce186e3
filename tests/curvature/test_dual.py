"""The dual form of G and of its blocks against the dense chain."""

from __future__ import annotations

import pytest
import torch

from decomposition.chain import build_chain
from decomposition.curvature import Curvature
from decomposition.curvature import dual as dual_module
from decomposition.curvature.dual import dual_rungs
from decomposition.damping import DampingError, Truncate
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from tests import cases
from tests.curvature.wide import WIDE, plain


@pytest.fixture(scope="module", params=list(WIDE))
def problem(request: pytest.FixtureRequest) -> Problem:
    return WIDE[request.param]()


@pytest.fixture(scope="module", params=["kept", "swept"])
def rungs(request: pytest.FixtureRequest, problem: Problem) -> dict[str, Curvature]:
    """The dual rungs with their rows kept, and without."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "swept":
            patch.setattr(dual_module, "KEPT_NUMBERS", 0)
        return dict(zip(("ggn", "block_ggn"), dual_rungs(problem), strict=True))


@pytest.fixture(scope="module")
def chain(problem: Problem) -> dict[str, Curvature]:
    return build_chain(problem)


@pytest.fixture(scope="module", params=["ggn", "block_ggn"])
def pair(
    request: pytest.FixtureRequest, rungs: dict[str, Curvature], chain: dict[str, Curvature]
) -> tuple[Curvature, Curvature]:
    """The dual rung and the dense one."""
    return rungs[request.param], chain[request.param]


def columns(size: int) -> torch.Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_products_are_those_of_the_matrix(pair: tuple[Curvature, Curvature]) -> None:
    dual, dense = pair
    v = columns(dense.size)
    torch.testing.assert_close(dual.matvec(v), dense.matvec(v), rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(dual.dense(), dense.dense(), rtol=1e-8, atol=1e-11)


def test_eigenvalues_trace_and_norm_are_those_of_the_matrix(
    pair: tuple[Curvature, Curvature],
) -> None:
    dual, dense = pair
    torch.testing.assert_close(dual.eigenvalues(), dense.eigenvalues(), rtol=1e-8, atol=1e-11)
    assert dual.trace() == pytest.approx(dense.trace(), rel=1e-10)
    assert dual.frobenius_norm() == pytest.approx(dense.frobenius_norm(), rel=1e-10)


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-4, 1e-6, 1e-8])
def test_solves_are_those_of_the_matrix(pair: tuple[Curvature, Curvature], share: float) -> None:
    dual, dense = pair
    damping = share * float(dense.eigenvalues()[-1])
    v = columns(dense.size)
    expected = dense.solve(v, damping)
    error = torch.linalg.norm(dual.solve(v, damping) - expected) / torch.linalg.norm(expected)
    assert float(error) < 1e-9 + 1e-15 / share  # what rounding leaves to either


def test_solutions_at_several_dampings_are_those_of_each(
    pair: tuple[Curvature, Curvature],
) -> None:
    """In one sweep for all of them; at λ = 0 a singular rung has none, and the others stay."""
    dual, dense = pair
    v, top = columns(dense.size), float(dense.eigenvalues()[-1])
    dampings = [0.0, 1e-6 * top, 1e-2 * top, top]
    found = dual.solutions(v, dampings)
    assert found.x[0].isnan().all()
    assert torch.isinf(found.error[0]).all()
    assert found.failures
    for damping, x, change in zip(dampings[1:], found.x[1:], found.error[1:], strict=True):
        torch.testing.assert_close(x, dual.solve(v, damping), rtol=1e-9, atol=1e-12 / damping)
        assert not change.any()


def test_a_policy_that_leaves_directions_out_is_followed(
    pair: tuple[Curvature, Curvature],
) -> None:
    dual, dense = pair
    top = float(dense.eigenvalues()[-1])
    policy, v = Truncate(1e-3 * top), columns(dense.size)
    expected = dense.solve(v, 1e-4 * top, policy)
    torch.testing.assert_close(dual.solve(v, 1e-4 * top, policy), expected, rtol=1e-7, atol=1e-7)


def test_blocks_are_those_of_the_matrix(
    rungs: dict[str, Curvature], chain: dict[str, Curvature]
) -> None:
    for name, block in chain["block_ggn"].diagonal_blocks().items():
        found = rungs["block_ggn"].diagonal_blocks()[name]
        torch.testing.assert_close(found.dense(), block.dense(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("damping", [0.0, 1e-19])
def test_a_singular_dual_is_refused(damping: float) -> None:
    with pytest.raises(DampingError):
        dual_rungs(plain())[0].solve(columns(67), damping)


def test_the_dual_refuses_where_it_is_the_larger_side() -> None:
    with pytest.raises(DecompositionError, match=r"N·C = 72, more than P = 15"):
        dual_rungs(cases.linear_softmax())
