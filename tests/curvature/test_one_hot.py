"""Embeddings beyond the limit of exact blocks: the linear map of one-hot rows that they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import EKFAC, KFAC, LATTICE, build_chain, build_lattice
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.factor_basis import factor_basis
from decomposition.curvature.factors import kronecker_bases, kronecker_factors
from decomposition.curvature.products import ggn_product, hessian_product
from decomposition.layers import ExactBlock, LinearBlock, find
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied

EXACT = 1e-12
TOKENS, WIDTH = 7, 3
PADDING = {"without padding": None, "padding": 2}


def _close(actual: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def forward(model: nn.Module, x: Tensor) -> Tensor:
    return model.out(torch.tanh(model.inner(torch.tanh(model.token(x)))).sum(1))


def with_embedding(monkeypatch: pytest.MonkeyPatch, padding: int | None = None) -> Problem:
    """Token 6 is never seen, tokens 0, 1, 3 and 4 equally often."""
    monkeypatch.setattr(find, "EXACT_LIMIT", TOKENS * WIDTH - 1)
    x = cases.tokens(cases.N + cases.QUERIES, cases.T, below=TOKENS - 1)
    x[: cases.N] = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 2] * 2).view(cases.N, cases.T)
    return cases.study(
        lambda: Applied(
            forward,
            token=nn.Embedding(TOKENS, WIDTH, padding_idx=padding),
            inner=nn.Linear(WIDTH, 4),
            out=nn.Linear(4, cases.CLASSES),
        ),
        x,
    )


def on_one_hot_rows(problem: Problem) -> tuple[Problem, Tensor]:
    """The model with a bias-free linear layer, and where its parameters stand in the other."""
    model = problem.double_model()
    padding = model.token.padding_idx
    layer = nn.Linear(TOKENS, WIDTH, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(model.token.weight.T)
    model.token = layer

    def rows(tokens: Tensor) -> Tensor:
        found = nn.functional.one_hot(tokens, TOKENS).double()
        if padding is not None:
            found[..., padding] = 0
        return found

    (x, y), (xq, yq) = problem.train, problem.query
    numbers = torch.arange(problem.num_parameters)
    own = problem.blocks[0].size
    order = torch.cat([numbers[:own].view(TOKENS, WIDTH).T.flatten(), numbers[own:]])
    return Problem(model, problem.loss, (rows(x), y), (rows(xq), yq)), order


@pytest.mark.parametrize("padding", PADDING)
def test_every_rung_is_that_of_a_linear_layer_on_one_hot_rows(
    padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = with_embedding(monkeypatch, PADDING[padding])
    assert isinstance(problem.blocks[0], LinearBlock)
    linear, order = on_one_hot_rows(problem)
    _close(problem.theta()[order], linear.theta())
    one, other = build_lattice(problem), build_lattice(linear)
    for rung in LATTICE:
        _close(one[rung].dense()[order][:, order], other[rung].dense(), 1e-10)
    for rung in (KFAC, EKFAC):
        for choice in ({"sharing": "reduce"}, {"separate_bias": True}):
            found = rung(**choice)(problem).dense()
            _close(found[order][:, order], rung(**choice)(linear).dense(), 1e-10)


def test_its_input_factor_is_the_frequency_of_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A = diag(frequencies), whose eigenvectors are tokens; the unseen one has no curvature."""
    problem = with_embedding(monkeypatch)
    a, _ = kronecker_factors(problem)["token"]
    counts = torch.bincount(problem.train[0].flatten(), minlength=TOKENS)
    _close(a, torch.diag(counts.double() / counts.sum()))
    inputs = kronecker_bases(problem)["token"].inputs
    assert torch.equal(inputs.vectors, torch.eye(TOKENS).double()[:, [6, 5, 0, 1, 3, 4, 2]])
    assert inputs.degenerate == ((2, 6),)
    chain = build_chain(problem)
    for rung in ("block_ggn", "ekfac", "kfac"):
        matrix = chain[rung].diagonal_blocks()["token"].dense().view(TOKENS, WIDTH, -1)
        assert not matrix[6].any()
        assert matrix[5].any()
    assert any("input factor has repeated eigenvalues at 2–5" in n for n in chain["kfac"].notes)


def test_structure_agrees_with_the_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = with_embedding(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, 2, generator=generator, dtype=torch.float64)
    for rung in (EKFAC(), KFAC()):
        curvature = rung(problem)
        dense = curvature.dense()
        _close(curvature.matvec(v), dense @ v, 1e-11)
        _close(curvature.eigenvalues(), torch.linalg.eigvalsh(dense), 1e-11)
        damped = dense + 0.1 * torch.eye(len(dense), dtype=torch.float64)
        _close(curvature.solve(v, 0.1), torch.linalg.solve(damped, v), 1e-10)


def test_the_dual_of_an_embedding_is_its_ggn(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = with_embedding(monkeypatch)
    chain = build_chain(problem)
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    for dual, rung in zip(dual_rungs(problem), ("ggn", "block_ggn"), strict=True):
        _close(dual.matvec(eye), chain[rung].dense(), 1e-11)


@pytest.mark.parametrize("limit", [8192, 0])
def test_products_leave_the_padding_alone_in_forward_mode_too(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row has no gradient; products, in forward mode, agree with the dense matrices."""
    problem = with_embedding(monkeypatch, padding=2)
    monkeypatch.setattr(find, "EXACT_LIMIT", limit)
    problem = Problem(problem.model, problem.loss, problem.train, problem.query)
    assert isinstance(problem.blocks[0], ExactBlock if limit else LinearBlock)
    chain = build_chain(problem)
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    for rung, product in (("ggn", ggn_product), ("hessian", hessian_product)):
        dense = chain[rung].dense()
        assert not dense[2 * WIDTH : 3 * WIDTH].any()
        _close(product(problem).matvec(eye), dense)


def test_below_the_limit_an_embedding_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = with_embedding(monkeypatch)
    monkeypatch.setattr(find, "EXACT_LIMIT", TOKENS * WIDTH)
    small = Problem(problem.model, problem.loss, problem.train, problem.query)
    assert isinstance(small.blocks[0], ExactBlock)
    assert small.blocks[0].reason == "Embedding"


def test_a_diagonal_factor_has_the_canonical_basis_of_any_other() -> None:
    """What sorting gives is what Gram–Schmidt on the projectors would."""
    values = torch.tensor([0.5, 0.0, 2.0, 0.5, 0.0, 0.5, 1.0]).double()
    sorted_ = factor_basis(torch.diag(values))
    disturbed = torch.diag(values)
    disturbed[0, 2] = disturbed[2, 0] = 1e-14
    other = factor_basis(disturbed)
    torch.testing.assert_close(sorted_.vectors, other.vectors, rtol=0, atol=1e-12)
    torch.testing.assert_close(sorted_.values, other.values, rtol=0, atol=1e-12)
    assert (sorted_.degenerate, sorted_.null) == (other.degenerate, other.null)
