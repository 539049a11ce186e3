"""The identities of the chain for models beyond stacks of linear layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from decomposition import influence_scores
from decomposition.chain import (
    CHAIN,
    EKFAC,
    KFAC,
    LATTICE,
    BlockGGN,
    FullGGN,
    build_chain,
    build_lattice,
)
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import BlockDiagonal, Curvature, Empirical, Fisher, Sampled
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.layers import ExactBlock
from decomposition.problem import Problem
from decomposition.spectrum.frobenius import frobenius_split
from tests import general as cases

STRUCTURES = ("hessian", "block_ggn", "ekfac_hessian", "ekfac", "kfac")


@pytest.fixture(scope="module")
def chain(general: Problem) -> dict[str, Curvature]:
    return dict(build_chain(general))


@pytest.fixture(scope="module")
def lattice(general: Problem) -> dict[str, Curvature]:
    return dict(build_lattice(general))


def _squared(matrix: Tensor) -> float:
    return float(torch.linalg.norm(matrix)) ** 2


def _equal(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()))


def test_squared_error_from_ggn_to_kfac_splits_exactly(chain: dict[str, Curvature]) -> None:
    g, b, e, k = (chain[name].dense() for name in CHAIN[1:])
    total = _squared(g - b) + _squared(b - e) + _squared(e - k)
    assert _squared(g - k) == pytest.approx(total, rel=1e-9, abs=1e-20 * _squared(g))


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("fisher", [Sampled(1), Sampled(3, seed=2), Empirical()])
@pytest.mark.parametrize("case", ["cnn", "attention", "tied", "called_twice", "two_inputs"])
def test_it_splits_for_every_fisher_and_either_sharing(
    case: str, fisher: Fisher, sharing: str
) -> None:
    parts = Parts(cases.GENERAL[case]())
    g, b, e, k = (
        rung.build(parts).dense()
        for rung in (
            FullGGN(fisher),
            BlockGGN(fisher),
            EKFAC(fisher, sharing=sharing),
            KFAC(fisher, sharing=sharing),
        )
    )
    total = _squared(g - b) + _squared(b - e) + _squared(e - k)
    assert _squared(g - k) == pytest.approx(total, rel=1e-9, abs=1e-20 * _squared(g))


def test_frobenius_split_with_its_cross_term_sums_to_the_whole_error(
    chain: dict[str, Curvature],
) -> None:
    h, k = chain["hessian"].dense(), chain["kfac"].dense()
    total = sum(frobenius_split(chain).values())
    assert total == pytest.approx(_squared(h - k), rel=1e-9, abs=1e-20 * _squared(h))


def test_ekfac_keeps_the_trace_of_the_blocks(chain: dict[str, Curvature]) -> None:
    assert chain["ekfac"].trace() == pytest.approx(chain["block_ggn"].trace(), rel=1e-12)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_ekfac_is_the_diagonal_of_the_blocks_in_its_basis(
    general: Problem, chain: dict[str, Curvature], sharing: str
) -> None:
    """diag(Qᵀ B Q): no other diagonal is nearer to B, whatever the factors behind the basis."""
    blocks = chain["block_ggn"].dense()
    ekfac = EKFAC(sharing=sharing)(general)
    q = ekfac.from_basis(torch.eye(ekfac.size, dtype=torch.float64))
    _equal(ekfac.basis_values(), (q.T @ blocks @ q).diagonal())


def test_lattice_has_the_diagonal_of_the_hessian_blocks(
    general: Problem, lattice: dict[str, Curvature]
) -> None:
    """diag(Qᵀ H_ll Q) for linear blocks, H_ll itself for the others."""
    found, blocks = lattice["ekfac_hessian"], lattice["block_hessian"]
    scale = float(lattice["hessian"].dense().abs().max())
    bases = lattice["ekfac"].diagonal_blocks()
    for block in general.blocks:
        mine = found.diagonal_blocks()[block.name].dense()
        exact = blocks.diagonal_blocks()[block.name].dense()
        if isinstance(block, ExactBlock):
            expected = exact
        else:
            q = bases[block.name].from_basis(torch.eye(block.size, dtype=torch.float64))
            expected = q @ torch.diag((q.T @ exact @ q).diagonal()) @ q.T
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("rung", ["ekfac", "kfac"])
@pytest.mark.parametrize("fisher", [None, Sampled(2), Empirical()])
@pytest.mark.parametrize(
    "case", ["embedding", "cnn", "time_major", "tied", "bias_only", "bare_parameters"]
)
def test_exact_blocks_stand_in_for_missing_kronecker_forms(
    case: str, fisher: Fisher | None, rung: str
) -> None:
    problem = cases.GENERAL[case]()
    choice = () if fisher is None else (fisher,)
    approximate = {"ekfac": EKFAC, "kfac": KFAC}[rung](*choice)(problem)
    full = FullGGN(*choice)(problem)
    exact = [block for block in problem.blocks if isinstance(block, ExactBlock)]
    assert exact
    for block in exact:
        found = approximate.diagonal_blocks()[block.name].dense()
        _equal(found, full.dense()[block.slice, block.slice])
        assert block.note in approximate.notes
        assert block.note in problem.notes
        assert block.reason in block.note


def test_blocks_lie_where_their_parameters_do(
    general: Problem, lattice: dict[str, Curvature]
) -> None:
    """Every rung's blocks, in the order of the parameters, with nothing outside of them."""
    for name, curvature in lattice.items():
        if name in ("hessian", "ggn"):
            continue
        assert isinstance(curvature, BlockDiagonal)
        assert list(curvature.diagonal_blocks()) == [block.name for block in general.blocks]
        dense = curvature.dense().clone()
        for block in general.blocks:
            inner = curvature.diagonal_blocks()[block.name].dense()
            assert torch.equal(dense[block.slice, block.slice], inner)
            dense[block.slice, block.slice] = 0
        assert not dense.any()


@pytest.mark.parametrize("rung", STRUCTURES)
def test_structure_agrees_with_the_dense_matrix(lattice: dict[str, Curvature], rung: str) -> None:
    """Products, solves, eigenvalues, trace and norm equal those of the matrix."""
    _check_structure(lattice[rung], lattice["ggn"].dense())


@pytest.mark.parametrize("rung", [EKFAC, KFAC, BlockGGN])
@pytest.mark.parametrize("case", ["cnn", "conv_grouped", "attention", "tied", "frozen"])
def test_separate_biases_agree_with_the_dense_matrix(case: str, rung: type) -> None:
    curvature = rung(separate_bias=True)(cases.GENERAL[case]())
    _check_structure(curvature, curvature.dense())


def _check_structure(curvature: Curvature, reference: Tensor) -> None:
    dense, scale = curvature.dense(), float(reference.abs().max())
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(dense), 2, generator=generator, dtype=torch.float64)
    close = {"rtol": 1e-9, "atol": 1e-10 * scale}
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-14 * scale)
    torch.testing.assert_close(curvature.matvec(v), dense @ v, **close)
    torch.testing.assert_close(curvature.eigenvalues(), torch.linalg.eigvalsh(dense), **close)
    assert curvature.trace() == pytest.approx(float(dense.trace()), rel=1e-9, abs=1e-12 * scale)
    assert curvature.frobenius_norm() == pytest.approx(float(torch.linalg.norm(dense)), rel=1e-9)
    mu, vectors = torch.linalg.eigh(dense)
    damped = vectors @ torch.diag(mu.abs() + 0.1 * scale) @ vectors.T
    torch.testing.assert_close(
        curvature.solve(v, 0.1 * scale, "absolute"),
        torch.linalg.solve(damped, v),
        rtol=1e-7,
        atol=1e-9 / scale,
    )


def test_all_nodes_of_the_lattice_are_there(lattice: dict[str, Curvature]) -> None:
    assert tuple(lattice) == LATTICE


@pytest.mark.parametrize("rung", ["hessian", "ekfac"])
def test_scores_are_those_of_the_dense_matrix(
    general: Problem, chain: dict[str, Curvature], rung: str
) -> None:
    """τ = g_qᵀ (|C| + λI)⁻¹ g_i / N."""
    curvature = chain[rung]
    train, query = (
        per_example_gradients(general, *pair) for pair in (general.train, general.query)
    )
    mu, vectors = torch.linalg.eigh(curvature.dense())
    inverse = vectors @ torch.diag(1 / (mu.abs() + 0.1)) @ vectors.T
    expected = query @ inverse @ train.T / general.num_examples
    found = torch.as_tensor(influence_scores(general, curvature, 0.1))
    _equal(found, expected, 1e-9)
