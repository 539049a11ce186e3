"""How λ enters an inverse, against NumPy: the matrix itself stays what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.chain.rungs import KFAC
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import (
    BlockDiagonal,
    DenseCurvature,
    NotAvailableError,
    SolveCurvature,
    UnderPolicy,
)
from decomposition.curvature.inversion import INVERSIONS, as_inversion, per_layer
from decomposition.damping import POLICIES, PseudoInverse, Truncate
from decomposition.errors import DampingError, DecompositionError
from tests import cases, general

MU = np.array([-2.0, -0.3, -0.04, 0.0, 0.5, 3.0])


def _curvature() -> tuple[DenseCurvature, np.ndarray]:
    v = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    return DenseCurvature(torch.from_numpy(v @ np.diag(MU) @ v.T), {"a": slice(0, 2)}), v


@pytest.mark.parametrize("damping", [0.01, 0.1, 5.0])
def test_truncation_by_hand(damping: float) -> None:
    """Inverse eigenvalues 1/(μ + λ) above ε and 0 below, after damping."""
    matrix, v = _curvature()
    damped = MU + damping
    inverse = np.where(damped > 1e-6, 1 / damped, 0.0)
    found = UnderPolicy(matrix, Truncate()).solve(torch.eye(6), damping)
    np.testing.assert_allclose(found, v @ np.diag(inverse) @ v.T, atol=1e-11 * inverse.max())


@pytest.mark.parametrize("asked", POLICIES)
def test_the_callers_policy_is_overruled(asked: str) -> None:
    matrix, _ = _curvature()
    v = torch.ones(6, dtype=torch.float64)
    own = UnderPolicy(matrix, "clip").solve(v, 0.1, negative=asked)
    torch.testing.assert_close(own, matrix.solve(v, 0.1, negative="clip"), rtol=0, atol=0)


def test_the_matrix_and_its_basis_are_those_of_the_curvature() -> None:
    matrix, _ = _curvature()
    wrapped = UnderPolicy(matrix, "clip")
    v = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(wrapped.dense(), matrix.dense())
    torch.testing.assert_close(wrapped.matvec(v), matrix.matvec(v))
    torch.testing.assert_close(wrapped.eigenvalues(), matrix.eigenvalues())
    panel = slice(1, 3)
    torch.testing.assert_close(wrapped.basis_columns(panel), matrix.basis_columns(panel))
    assert wrapped.trace() == matrix.trace()
    assert wrapped.frobenius_norm() == matrix.frobenius_norm()
    assert wrapped.basis_key() == matrix.basis_key()
    assert wrapped.notes == ("negative eigenvalues: policy clip",)


def test_its_dense_matrix_is_the_callers_to_overwrite() -> None:
    matrix, _ = _curvature()
    UnderPolicy(matrix, "clip").dense().zero_()
    assert matrix.dense().any()


def test_its_blocks_follow_the_same_policy() -> None:
    matrix, _ = _curvature()
    block = UnderPolicy(matrix, "clip").diagonal_blocks()["a"]
    v = torch.ones(2, dtype=torch.float64)
    expected = matrix.diagonal_blocks()["a"].solve(v, 0.1, negative="clip")
    torch.testing.assert_close(block.solve(v, 0.1), expected)


def test_blocks_of_several_policies_are_refused() -> None:
    matrix, _ = _curvature()
    with pytest.raises(DecompositionError, match="give it to the whole curvature"):
        BlockDiagonal({"a": UnderPolicy(matrix, "clip"), "b": matrix})


def test_blocks_of_one_policy_hand_it_on() -> None:
    matrix, _ = _curvature()
    both = BlockDiagonal({"a": UnderPolicy(matrix, "clip"), "b": UnderPolicy(matrix, "clip")})
    v = torch.ones(12, dtype=torch.float64)
    expected = matrix.solve(v[:6], 0.1, negative="clip")
    torch.testing.assert_close(both.solve(v, 0.1), torch.cat([expected, expected]))


def test_nothing_left_is_an_error() -> None:
    negative = DenseCurvature(-torch.eye(3))
    with pytest.raises(DampingError, match=r"no eigenvalue is left at damping=0\.5"):
        UnderPolicy(negative, Truncate()).solve(torch.ones(3), 0.5)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(DampingError, match="'abs'"):
        UnderPolicy(_curvature()[0], "abs")


LAYERS = {"a": slice(0, 2), "b": slice(2, 6)}


def _units(matrix: np.ndarray) -> np.ndarray:
    """m_l / m of every parameter."""
    means = {name: np.diag(matrix)[part].mean() for name, part in LAYERS.items()}
    return np.array([means["a"]] * 2 + [means["b"]] * 4) / np.diag(matrix).mean()


@pytest.mark.parametrize("policy", ["absolute", "clip", "shift"])
def test_each_layer_of_a_coupled_curvature_is_damped_by_its_own_mean(policy: str) -> None:
    """(d(C) + λ ⊕ (m_l/m) I)⁻¹, m_l = tr C_ll / P_l, with d(C) what the policy makes of C."""
    matrix, v = _curvature()
    taken = {"absolute": abs(MU), "clip": MU.clip(0), "shift": MU - MU.min()}[policy]
    wanted = np.linalg.inv(v @ np.diag(taken) @ v.T + 0.3 * np.diag(_units(matrix.dense().numpy())))
    found = per_layer(matrix, LAYERS).solve(torch.eye(6), 0.3, policy)
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_each_block_is_damped_by_its_own_mean_in_the_basis_it_has() -> None:
    rows = np.random.default_rng(1).standard_normal((9, 6))
    parts = {name: torch.from_numpy(rows[:, p].T @ rows[:, p]) for name, p in LAYERS.items()}
    blocks = BlockDiagonal(parts)
    found = per_layer(blocks, {})
    wanted = np.diag(0.1 * _units(blocks.dense().numpy())) + blocks.dense().numpy()
    np.testing.assert_allclose(found.solve(torch.eye(6), 0.1), np.linalg.inv(wanted), atol=1e-10)
    assert found.eigenbasis is not None
    assert blocks.eigenbasis is not None
    assert found.eigenbasis.basis_key() == blocks.eigenbasis.basis_key()


def test_damping_by_layer_says_why_there_is_none() -> None:
    matrix, _ = _curvature()
    with pytest.raises(NotAvailableError, match="an inverse of its own"):
        per_layer(UnderPolicy(matrix, "clip"), LAYERS)
    with pytest.raises(NotAvailableError, match="what its solver makes of λ"):
        per_layer(SolveCurvature(6, lambda v, damping: v / damping), LAYERS)
    with pytest.raises(NotAvailableError, match="raise --memory"):
        per_layer(matrix, LAYERS, formed=False)
    with pytest.raises(DampingError, match="layer a is 0"):
        per_layer(BlockDiagonal({"a": torch.zeros(2, 2), "b": torch.eye(4)}), {})
    with pytest.raises(DampingError, match="not positive definite"):
        per_layer(matrix, LAYERS).solve(torch.ones(6), 1e-3, "signed")


@pytest.mark.parametrize("threshold", [0.01, 0.1, 1.0])
def test_the_pseudo_inverse_is_that_of_a_singular_value_decomposition(threshold: float) -> None:
    matrix, _ = _curvature()
    left, sizes, right = np.linalg.svd(matrix.dense().numpy())
    inverse = np.where(sizes > threshold, 1 / np.where(sizes > 0, sizes, 1.0), 0.0)
    wanted = right.T @ np.diag(inverse) @ left.T
    absolute = wanted @ wanted  # of |C|, whose square is that of C
    found = UnderPolicy(matrix, PseudoInverse()).solve(torch.eye(6), threshold)
    np.testing.assert_allclose(found @ found, absolute, atol=1e-9)


def test_factored_damping_is_the_product_of_the_damped_factors() -> None:
    problem = cases.tanh()
    chain = build_chain(problem)
    eye, damping = torch.eye(problem.num_parameters), 0.02
    found = chain["kfac"].by_factors().solve(eye, damping)
    wanted = KFAC(factored_damping=True).build(Parts(problem, None, False)).solve(eye, damping)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, chain["kfac"].solve(eye, damping))
    with pytest.raises(NotAvailableError, match="no Kronecker product"):
        chain["ggn"].by_factors()


@pytest.mark.parametrize("damping", [1e-3, 0.1, 3.0])
def test_factored_damping_of_every_layer_by_numpy(damping: float) -> None:
    """(A + π√λ)⁻¹ ⊗ (S + √λ/π)⁻¹, π² = (tr A / d_A) / (tr S / d_S), on weight and bias together."""
    problem = cases.tanh()
    kfac = build_chain(problem)["kfac"]
    found = as_inversion("factored").of(kfac, {}, True)
    for name, block in kfac.diagonal_blocks().items():
        basis = block.basis  # type: ignore[attr-defined]
        a, s = ((f.vectors * f.values @ f.vectors.T).numpy() for f in (basis.inputs, basis.outputs))
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(s) / len(s)))
        root = np.sqrt(damping)
        inverse = [
            np.linalg.inv(m + np.eye(len(m)) * d) for m, d in ((s, root / pi), (a, root * pi))
        ]
        v = torch.from_numpy(np.random.default_rng(0).standard_normal((block.size, 3)))
        taken = found.diagonal_blocks()[name].solve(v, damping)
        for column, x in zip(v.T, taken.T, strict=True):
            matrix = block.basis.block.to_matrix(column[:, None])[..., 0].numpy()  # type: ignore[attr-defined]
            wanted = inverse[0] @ matrix @ inverse[1]
            got = block.basis.block.to_matrix(x[:, None])[..., 0]  # type: ignore[attr-defined]
            np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-10 * abs(wanted).max())


@pytest.mark.parametrize("name", INVERSIONS)
def test_an_inversion_is_specified_as_it_says_itself(name: str) -> None:
    assert as_inversion(str(as_inversion(name))) == as_inversion(name)
    assert as_inversion(name).name == name


def test_truncation_takes_its_threshold() -> None:
    matrix, v = _curvature()
    inverse = np.where(MU + 0.4 > 0.15, 1 / (MU + 0.4), 0.0)
    found = as_inversion("truncated:0.15").of(matrix, {}, True).solve(torch.eye(6), 0.4)
    np.testing.assert_allclose(found, v @ np.diag(inverse) @ v.T, atol=1e-12)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("layered", "unknown inversion 'layered': use damped, per_layer, factored"),
        ("damped:1", "damped does not take '1' in damped:1; it takes no number"),
        ("truncated:0", r"the threshold of inversion truncated must lie in \(0"),
    ],
)
def test_inversions_that_are_none(written: str, said: str) -> None:
    with pytest.raises(DecompositionError, match=said):
        as_inversion(written)


def test_damping_by_layer_leaves_matrix_eigenvalues_trace_and_norm_as_they_are() -> None:
    """Coupled, and layer by layer: every answer is that of the dense matrix."""
    coupled, _ = _curvature()
    parts = {
        n: torch.diag(torch.arange(1.0, 1.0 + p.stop - p.start)).double() for n, p in LAYERS.items()
    }
    for curvature in (coupled, BlockDiagonal(parts)):
        dense, found = curvature.dense(), per_layer(curvature, LAYERS)
        v = torch.arange(6.0).double()
        torch.testing.assert_close(found.dense(), dense)
        torch.testing.assert_close(found.matvec(v), dense @ v)
        torch.testing.assert_close(found.eigenvalues(), torch.linalg.eigvalsh(dense))
        assert float(found.trace()) == pytest.approx(float(dense.trace()))
        assert float(found.frobenius_norm()) == pytest.approx(float(dense.norm()))
        joined = {name: block.dense() for name, block in found.diagonal_blocks().items()}
        assert found.coupled == (not joined)
        if joined:
            torch.testing.assert_close(torch.block_diag(*joined.values()), dense)


def test_solutions_at_several_dampings_are_those_at_each() -> None:
    """A basis is rotated into once for all λ; one at which there is none says so."""
    matrix, _ = _curvature()
    v, dampings = torch.eye(6).double(), [0.05, 0.3, 2.5]
    found = matrix.solutions(v, dampings, "signed")
    for damping, x in zip(dampings, found.x, strict=True):
        if damping == 0.3:  # μ = −0.3
            assert x.isnan().all()
        else:
            torch.testing.assert_close(x, matrix.solve(v, damping))
    assert len(found.failures) == 1


@pytest.mark.parametrize("name", ["per_layer", "factored"])
def test_a_rung_keeps_its_notes(name: str) -> None:
    problem = general.layer_norm()
    kfac = build_chain(problem)["kfac"]
    layers = {block.name: block.slice for block in problem.blocks}
    assert kfac.notes
    assert set(kfac.notes) <= set(as_inversion(name).of(kfac, layers, True).notes)
