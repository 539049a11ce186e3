"""The identities of the chain, one test each, over the table of small problems."""

from __future__ import annotations

import pytest
import torch

from decomposition.chain import CHAIN, LATTICE, build_chain, build_lattice
from decomposition.chain.plan import plan_chain
from decomposition.curvature import BlockDiagonal, Curvature
from decomposition.curvature.terms import LayerTerms, as_double
from decomposition.problem import Problem
from decomposition.scores.gradients import StreamedGradients
from decomposition.scores.scorers import scorers_of
from decomposition.spectrum.frobenius import frobenius_split
from tests import cases

EXACT = 1e-10


def _squared(matrix: torch.Tensor) -> float:
    return float(torch.linalg.norm(matrix)) ** 2


def _equal(a: Curvature, b: Curvature) -> None:
    scale = float(b.dense().abs().max())
    torch.testing.assert_close(a.dense(), b.dense(), rtol=0, atol=EXACT * scale)


def test_squared_error_from_ggn_to_kfac_splits_exactly(problem: Problem) -> None:
    g, b, e, k = (build_chain(problem)[name].dense() for name in CHAIN[1:])
    total = _squared(g - b) + _squared(b - e) + _squared(e - k)
    assert _squared(g - k) == pytest.approx(total, rel=1e-9, abs=1e-20 * _squared(g))


def test_squared_error_splits_exactly_in_every_layer(problem: Problem) -> None:
    chain = build_chain(problem)
    for name, exact in chain["block_ggn"].diagonal_blocks().items():
        b, e, k = (
            m.dense()
            for m in (
                exact,
                chain["ekfac"].diagonal_blocks()[name],
                chain["kfac"].diagonal_blocks()[name],
            )
        )
        total = _squared(b - e) + _squared(e - k)
        assert _squared(b - k) == pytest.approx(total, rel=1e-9, abs=1e-20 * _squared(b))


def test_frobenius_split_with_its_cross_term_sums_to_the_whole_error(problem: Problem) -> None:
    chain = build_chain(problem)
    split = frobenius_split(chain)
    h, k = chain["hessian"].dense(), chain["kfac"].dense()
    g = chain["ggn"].dense()
    assert sum(split.values()) == pytest.approx(_squared(h - k), rel=1e-9, abs=1e-20 * _squared(h))
    expected_cross = 2.0 * float(((h - g) * (g - k)).sum())
    assert split["cross_term"] == pytest.approx(expected_cross, rel=1e-7, abs=1e-14 * _squared(h))


def test_ekfac_is_frobenius_optimal_in_its_basis(problem: Problem) -> None:
    chain = build_chain(problem)
    exact, ekfac = chain["block_ggn"].dense(), chain["ekfac"]
    best = _squared(exact - ekfac.dense())
    basis = ekfac.from_basis(torch.eye(ekfac.size, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1e-1, 1.0):
        noise = torch.randn(ekfac.size, generator=generator, dtype=torch.float64)
        other = ekfac.basis_values() + scale * ekfac.basis_values().abs().max() * noise
        assert best <= _squared(exact - basis @ torch.diag(other) @ basis.T)


def test_ekfac_keeps_the_trace_of_the_blocks(problem: Problem) -> None:
    chain = build_chain(problem)
    assert chain["ekfac"].trace() == pytest.approx(chain["block_ggn"].trace(), rel=1e-12)


def test_lattice_diagonal_keeps_the_trace_of_the_hessian_blocks(problem: Problem) -> None:
    lattice = build_lattice(problem)
    scale = lattice["ggn"].trace()
    expected = lattice["block_hessian"].trace()
    assert lattice["ekfac_hessian"].trace() == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale)


def test_deep_linear_network_with_squared_error_makes_kfac_exact() -> None:
    chain = build_chain(cases.deep_linear())
    _equal(chain["ekfac"], chain["block_ggn"])
    _equal(chain["kfac"], chain["block_ggn"])


def test_one_example_makes_kfac_exact() -> None:
    chain = build_chain(cases.one_example())
    _equal(chain["ekfac"], chain["block_ggn"])
    _equal(chain["kfac"], chain["block_ggn"])


def test_last_layer_of_hessian_and_ggn_agree(problem: Problem) -> None:
    chain = build_chain(problem)
    order = problem.layout.order
    last = order[-1]
    _equal(
        chain["hessian"].diagonal_blocks()[last],
        chain["ggn"].diagonal_blocks()[last],
    )


def test_relu_network_has_equal_diagonal_blocks() -> None:
    lattice = build_lattice(cases.relu())
    blocks = zip(
        lattice["hessian"].diagonal_blocks().values(),
        lattice["ggn"].diagonal_blocks().values(),
        strict=True,
    )
    for of_hessian, of_ggn in blocks:
        _equal(of_hessian, of_ggn)


@pytest.mark.parametrize(("case", "agree"), [("relu", True), ("tanh", False)])
@pytest.mark.parametrize("budget", [None, 1], ids=["dense", "by products"])
def test_equal_diagonal_blocks_are_one_rung(case: str, agree: bool, budget: int | None) -> None:
    problem = cases.CASES[case]()
    lattice = build_lattice(problem, plan=plan_chain(problem, budget))
    assert (lattice["block_hessian"] is lattice["block_ggn"]) == agree
    values = [lattice[name].basis_values() for name in ("ekfac_hessian", "ekfac")]
    assert torch.equal(*values) == agree
    scorers = scorers_of(lattice, StreamedGradients(problem))
    assert (scorers["block_hessian"] is scorers["block_ggn"]) == agree


@pytest.mark.parametrize("case", ["linear_softmax", "linear_regression"])
def test_linear_model_has_no_residual_curvature(case: str) -> None:
    chain = build_chain(cases.CASES[case]())
    _equal(chain["hessian"], chain["ggn"])


def test_rank_of_softmax_ggn_is_at_most_examples_times_classes_less_one() -> None:
    problem = cases.classification(cases.mlp((4, 8, 8, 3), torch.nn.Tanh, 0), n=6)
    eigenvalues = build_chain(problem)["ggn"].eigenvalues()
    rank = int((eigenvalues > 1e-12 * eigenvalues[-1]).sum())
    assert rank <= 6 * (3 - 1) < problem.num_parameters


def test_nonzero_spectrum_of_ggn_is_that_of_the_dual_gram_matrix(problem: Problem) -> None:
    """The Gram matrix of the NC vectors s_c ⊗ a / √N, built per example without the assembly."""
    x, y = problem.train
    terms = LayerTerms(problem).gauss_newton(x.double(), as_double(y))
    gram = sum(
        torch.einsum("nctd,mktd,ntp,mtp->ncmk", s, s, a, a)
        for s, a in ((terms.roots[b.name], terms.inputs[b.name]) for b in problem.blocks)
    )
    count = terms.roots[problem.blocks[0].name].shape[1] * len(x)
    dual = torch.linalg.eigvalsh(gram.reshape(count, count) / len(x))
    primal = build_chain(problem)["ggn"].eigenvalues()
    k = min(count, problem.num_parameters)
    torch.testing.assert_close(primal[-k:], dual[-k:], rtol=0, atol=1e-12 * float(dual[-1]))


@pytest.mark.parametrize("rung", LATTICE)
def test_structure_agrees_with_the_dense_matrix(problem: Problem, rung: str) -> None:
    """Products, solves, eigenvalues, trace and norm of every rung equal those of its matrix."""
    curvature = build_lattice(problem)[rung]
    dense = curvature.dense()
    scale = float(dense.abs().max())
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, 3, generator=generator, dtype=torch.float64)
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    damping = 0.1 * scale
    close = {"rtol": 1e-9, "atol": 1e-10 * scale}
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-14 * scale)
    torch.testing.assert_close(curvature.matvec(v), dense @ v, **close)
    torch.testing.assert_close(curvature.matvec(v[:, 0]), dense @ v[:, 0], **close)
    values = torch.linalg.eigvalsh(dense)
    torch.testing.assert_close(curvature.eigenvalues(), values, **close)
    assert curvature.trace() == pytest.approx(float(dense.trace()), rel=1e-9, abs=1e-12 * scale)
    assert curvature.frobenius_norm() == pytest.approx(float(torch.linalg.norm(dense)), rel=1e-9)
    solved = curvature.solve(v, damping + 2 * float(values.abs().max()))
    shift = (damping + 2 * float(values.abs().max())) * eye
    torch.testing.assert_close(solved, torch.linalg.solve(dense + shift, v), rtol=1e-9, atol=1e-12)
    mu, vectors = torch.linalg.eigh(dense)
    absolute = vectors @ torch.diag(mu.abs() + damping) @ vectors.T
    torch.testing.assert_close(
        curvature.solve(v[:, 0], damping, negative="absolute"),
        torch.linalg.solve(absolute, v[:, 0]),
        rtol=1e-7,
        atol=1e-9,
    )


@pytest.mark.parametrize("rung", LATTICE)
def test_basis_is_orthonormal(problem: Problem, rung: str) -> None:
    curvature = build_lattice(problem)[rung]
    eye = torch.eye(curvature.size, dtype=torch.float64)
    vectors = curvature.from_basis(eye)
    torch.testing.assert_close(vectors.T @ vectors, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(curvature.to_basis(eye), vectors.T, rtol=0, atol=1e-12)
    panel = slice(1, min(4, curvature.size))
    torch.testing.assert_close(curvature.basis_columns(panel), vectors[:, panel], rtol=0, atol=0)


def test_ekfac_and_kfac_share_their_basis(problem: Problem) -> None:
    chain = build_chain(problem)
    assert isinstance(chain["ekfac"], BlockDiagonal)
    for name, block in chain["ekfac"].diagonal_blocks().items():
        assert block.basis is chain["kfac"].diagonal_blocks()[name].basis
