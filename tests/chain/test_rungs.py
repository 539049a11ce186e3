"""Rungs beyond the chain: separate biases, other Fishers, and what they share with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from decomposition.chain import (
    EKFAC,
    KFAC,
    BlockGGN,
    FullGGN,
    HessianRung,
    build_chain,
    build_lattice,
    fisher_rungs,
    sampled_block_ggn,
    sampled_ekfac,
    sampled_kfac,
)
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import Curvature, Diagonalised, Empirical, Sampled, UnderPolicy
from decomposition.errors import DampingError
from decomposition.problem import Problem
from tests import cases

SEPARATE = {
    "block_ggn": BlockGGN(separate_bias=True),
    "ekfac": EKFAC(separate_bias=True),
    "kfac": KFAC(separate_bias=True),
}
OTHERS = {f"{name}, separate": rung for name, rung in SEPARATE.items()} | dict(fisher_rungs(seed=1))


def _squared(matrix: torch.Tensor) -> float:
    return float(torch.linalg.norm(matrix)) ** 2


def _equal(a: Curvature, b: Curvature) -> None:
    scale = float(b.dense().abs().max())
    torch.testing.assert_close(a.dense(), b.dense(), rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("rung", OTHERS)
@pytest.mark.parametrize("case", ["tanh", "tanh_regression", "residual", "whitened"])
def test_structure_agrees_with_the_dense_matrix(case: str, rung: str) -> None:
    """Products, solves, eigenvalues, trace and norm equal those of the matrix."""
    problem = cases.CASES[case]()
    curvature = OTHERS[rung](problem)
    dense = curvature.dense()
    scale = float(dense.abs().max())
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, 3, generator=generator, dtype=torch.float64)
    atol = 1e-10 * scale
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-14 * scale)
    torch.testing.assert_close(curvature.matvec(v), dense @ v, rtol=1e-9, atol=atol)
    torch.testing.assert_close(
        curvature.eigenvalues(), torch.linalg.eigvalsh(dense), rtol=1e-9, atol=atol
    )
    assert curvature.trace() == pytest.approx(float(dense.trace()), rel=1e-9)
    assert curvature.frobenius_norm() == pytest.approx(float(torch.linalg.norm(dense)), rel=1e-9)
    damped = dense + 0.1 * scale * torch.eye(len(dense), dtype=torch.float64)
    expected = torch.linalg.solve(damped, v)
    found = curvature.solve(v, 0.1 * scale)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11 / scale)


@pytest.mark.parametrize("rung", SEPARATE)
def test_separate_biases_keep_a_block_for_every_layer(problem: Problem, rung: str) -> None:
    """The layers are those of the model, and weight and bias are uncoupled in each."""
    blocks = SEPARATE[rung].build(Parts(problem)).diagonal_blocks()
    assert list(blocks) == [block.name for block in problem.blocks]
    for block in problem.blocks:
        dense = blocks[block.name].dense()
        split = block.d_out * block.d_in
        assert dense.shape == (block.size, block.size)
        assert not dense[:split, split:].any()


def test_block_ggn_with_separate_biases_is_the_ggn_where_it_is_kept(problem: Problem) -> None:
    exact = build_chain(problem, {"split": SEPARATE["block_ggn"]})
    for block in problem.blocks:
        split = block.d_out * block.d_in
        full = exact["ggn"].diagonal_blocks()[block.name].dense()
        found = exact["split"].diagonal_blocks()[block.name].dense()
        for part in (slice(0, split), slice(split, None)):
            torch.testing.assert_close(found[part, part], full[part, part], rtol=0, atol=0)


@pytest.mark.parametrize("rung", ["ekfac", "kfac"])
def test_a_bias_of_its_own_is_exact(problem: Problem, rung: str) -> None:
    """Its block is S: the exact GGN block of the bias, whatever the structure of the weight."""
    parts = Parts(problem)
    approximate = SEPARATE[rung].build(parts).diagonal_blocks()
    for block in problem.blocks:
        split = block.d_out * block.d_in
        expected = parts.ggn().diagonal_blocks()[block.name].dense()[split:, split:]
        found = approximate[block.name].dense()[split:, split:]
        torch.testing.assert_close(
            found, expected, rtol=0, atol=1e-12 * float(parts.ggn().dense().abs().max())
        )


def test_squared_error_splits_exactly_with_separate_biases(problem: Problem) -> None:
    chain = build_chain(problem, {f"{name}_split": rung for name, rung in SEPARATE.items()})
    joint = chain["block_ggn"].dense()
    b, e, k = (chain[f"{name}_split"].dense() for name in SEPARATE)
    total = _squared(joint - b) + _squared(b - e) + _squared(e - k)
    assert _squared(joint - k) == pytest.approx(total, rel=1e-9, abs=1e-20 * _squared(joint))


@pytest.mark.parametrize("fisher", [Sampled(1), Sampled(3, seed=2), Empirical()])
@pytest.mark.parametrize("separate", [False, True])
def test_squared_error_splits_exactly_for_every_fisher(
    problem: Problem, fisher: Sampled | Empirical, separate: bool
) -> None:
    """Blocks, corrected eigenvalues and products of one Fisher are a chain like the exact one."""
    parts = Parts(problem)
    g, b, e, k = (
        rung.build(parts).dense()
        for rung in (
            FullGGN(fisher),
            BlockGGN(fisher, separate),
            EKFAC(fisher, separate),
            KFAC(fisher, separate),
        )
    )
    total = _squared(g - b) + _squared(b - e) + _squared(e - k)
    assert _squared(g - k) == pytest.approx(total, rel=1e-9, abs=1e-20 * _squared(g))


@pytest.mark.parametrize("case", ["linear_softmax", "linear_regression", "tanh"])
def test_without_biases_separating_them_changes_nothing(case: str) -> None:
    base = cases.CASES[case]()
    model = base.double_model()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_parameter("bias", None)
    problem = Problem(model, base.loss, base.train, base.query)
    chain = build_chain(problem, {f"{name}_split": rung for name, rung in SEPARATE.items()})
    for name in SEPARATE:
        _equal(chain[f"{name}_split"], chain[name])


def test_exact_fisher_rungs_are_the_chains_own(problem: Problem) -> None:
    chain = build_chain(problem)
    for name, rung in {"ggn": FullGGN(), "block_ggn": BlockGGN(), "ekfac": EKFAC()}.items():
        _equal(rung(problem), chain[name])


def test_factories_make_the_rungs_that_they_name() -> None:
    assert sampled_kfac(2, seed=5) == KFAC(Sampled(2, 5))
    assert sampled_ekfac() == EKFAC(Sampled(1, 0))
    assert sampled_block_ggn() == BlockGGN(Sampled(1, 0))
    assert fisher_rungs(3)["kfac_mc1"] == sampled_kfac(seed=3)
    assert fisher_rungs()["ekfac_empirical"] == EKFAC(Empirical())


@pytest.mark.parametrize("build", [build_chain, build_lattice])
def test_a_rung_beside_a_chain_is_the_rung_alone(build) -> None:
    problem = cases.residual()
    chain = build(problem, OTHERS)
    for name, rung in OTHERS.items():
        _equal(chain[name], rung(problem))


def test_rungs_share_what_they_are_made_of() -> None:
    """One H, and one basis for K-FAC, EK-FAC and the factored damping of the same choices."""
    fisher = Sampled(1)
    chain = build_chain(
        cases.tanh(),
        {
            "mine": HessianRung(),
            "a": EKFAC(fisher),
            "b": KFAC(fisher),
            "c": KFAC(fisher, factored_damping=True),
            "d": KFAC(factored_damping=True),
        },
    )
    assert isinstance(chain["mine"], UnderPolicy)
    assert chain["mine"].curvature is chain["hessian"]
    assert _key(chain["a"]) == _key(chain["b"]) == _key(chain["c"])
    assert _key(chain["d"]) == _key(chain["kfac"]) == _key(chain["ekfac"])
    assert _key(chain["a"]) != _key(chain["ekfac"])


def _key(curvature: Curvature) -> object:
    assert isinstance(curvature, Diagonalised)
    return curvature.basis_key()


def test_nothing_is_kept_from_one_point_to_the_next() -> None:
    problem = cases.tanh()
    rung = sampled_kfac()
    before = rung(problem).dense()
    with torch.no_grad():
        next(problem.model.parameters()).mul_(0.5)
    assert not torch.allclose(rung(problem).dense(), before)


def test_an_unknown_policy_is_named_where_it_is_given() -> None:
    with pytest.raises(DampingError, match="'abs'"):
        HessianRung("abs")
