"""The nearest Kronecker product of a block, against the singular values of its rearrangement."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.chain.approximations import kpsvd
from decomposition.layers import ExactBlock, LinearBlock
from decomposition.problem import Problem
from tests import cases, general
from tests.chain.approximations.shared import PROBLEMS, chain_of, ggn


def rearranged(matrix: np.ndarray, block: LinearBlock, group: int) -> np.ndarray:
    """Of a group's block in the order of [W | b]: a row for each pair of outputs."""
    order = block.to_matrix(torch.arange(block.size)[:, None])[:, :, 0].numpy()
    d = block.d_out // block.groups
    own = order[group * d : (group + 1) * d].flatten()
    parts = matrix[np.ix_(own, own)].reshape(d, block.width, d, block.width)
    return parts.transpose(0, 2, 1, 3).reshape(d * d, block.width**2)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "beyond"])
@pytest.mark.parametrize("name", [*PROBLEMS, "attention", "tied"])
def test_it_is_the_leading_singular_pair_of_every_rearranged_block(name: str, dense: bool) -> None:
    """Van Loan & Pitsianis: ‖G_ll − A ⊗ S‖² = Σ_{i ≥ 2} σ_i²."""
    problem = (PROBLEMS | general.GENERAL)[name]()
    found = chain_of(problem, {"kpsvd": kpsvd()}, dense)["kpsvd"].diagonal_blocks()
    matrix = ggn(problem)
    for block in problem.blocks:
        exact, mine = matrix[block.slice, block.slice], found[block.name].dense().numpy()
        if isinstance(block, ExactBlock):
            np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-12 * np.abs(exact).max())
            continue
        for group in range(block.groups):
            singular = np.linalg.svd(rearranged(exact, block, group), compute_uv=False)
            difference = rearranged(exact - mine, block, group)
            best = (singular[1:] ** 2).sum()
            slack = 1e-9 * (singular**2).sum()
            assert (difference**2).sum() == pytest.approx(best, rel=1e-6, abs=slack)


def test_it_is_nowhere_further_from_a_block_than_kfac(problem: Problem) -> None:
    chain = build_chain(problem, {"kpsvd": kpsvd()})
    for name, exact in chain["block_ggn"].diagonal_blocks().items():
        near, kfac = (
            float(torch.linalg.norm(exact.dense() - chain[rung].diagonal_blocks()[name].dense()))
            for rung in ("kpsvd", "kfac")
        )
        assert near <= kfac * (1 + 1e-9) + 1e-12 * exact.frobenius_norm()


@pytest.mark.parametrize("case", ["deep_linear", "one_example"])
def test_where_kfac_is_exact_it_is_kfac(case: str) -> None:
    chain = build_chain(cases.CASES[case](), {"kpsvd": kpsvd()})
    exact = chain["kfac"].dense()
    atol = 1e-9 * float(exact.abs().max())
    torch.testing.assert_close(chain["kpsvd"].dense(), exact, rtol=0, atol=atol)


def test_it_is_the_same_when_terms_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = general.conv_grouped()

    def made() -> list[torch.Tensor]:
        rung = chain_of(problem, {"kpsvd": kpsvd()}, False)["kpsvd"]
        return [block.dense() for block in rung.diagonal_blocks().values()]

    kept = made()
    module = import_module("decomposition.chain.approximations.kpsvd")
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    monkeypatch.setattr(module, "PAIR_NUMBERS", 64)
    torch.testing.assert_close(made(), kept, rtol=1e-9, atol=1e-12)
