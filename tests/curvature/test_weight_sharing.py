"""Kronecker factors of layers whose weight is shared: closed forms, and where they are exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import EKFAC, KFAC, LATTICE, build_chain, build_lattice
from decomposition.curvature import terms as layer_terms
from decomposition.curvature.factors import (
    ggn_diagonals,
    kronecker_bases,
    kronecker_factors,
)
from decomposition.curvature.fisher import fisher_terms
from decomposition.errors import DecompositionError
from decomposition.inputs import take
from decomposition.layers import LinearBlock
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied
from tests.oracles.shared_weights import shared_layer, windows

CLOSED_FORM, EXACT = 1e-8, 1e-12
SHARING = ["expand", "reduce"]


def _close(
    actual: Tensor, expected: Tensor | np.ndarray, tolerance: float, floor: float = 0.0
) -> None:
    """Within ``tolerance`` of the largest entry, which counts as ``floor`` at least."""
    expected = torch.as_tensor(np.asarray(expected))
    scale = max(float(expected.abs().max()), floor)
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def convolution(stride: int = 1) -> tuple[Problem, np.ndarray, bool]:
    width = 3 * ((4 - 2) // stride + 1) ** 2

    def build() -> nn.Module:
        first = nn.Conv2d(2, 3, 2, stride=stride)
        return nn.Sequential(first, nn.Tanh(), Turned(), nn.Linear(width, 3))

    problem = cases.study(build, cases.images(2, 4, 4))
    return problem, windows(problem.train[0].numpy(), 2, stride), False


class Turned(nn.Module):
    """Feature maps with their positions first."""

    def forward(self, h: Tensor) -> Tensor:
        return h.flatten(2).transpose(1, 2).flatten(1)


def sequence(pooled: bool) -> tuple[Problem, np.ndarray, bool]:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = torch.tanh(model.inner(x))
        return model.out(h.mean(1) if pooled else h.flatten(1))

    width = 5 if pooled else 5 * cases.T
    problem = cases.study(
        lambda: Applied(forward, inner=nn.Linear(4, 5), out=nn.Linear(width, 3)),
        cases.images(cases.T, 4),
    )
    return problem, problem.train[0].numpy(), pooled


MODELS: dict[str, Callable[[], tuple[Problem, np.ndarray, bool]]] = {
    "convolution": convolution,
    "strided convolution": lambda: convolution(2),
    "sequence": lambda: sequence(False),
    "pooled sequence": lambda: sequence(True),
}


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("model", MODELS)
def test_factors_and_eigenvalues_by_hand(model: str, sharing: str) -> None:
    problem, inputs, pooled = MODELS[model]()
    oracle, name = shared_layer(problem, inputs, pooled), problem.blocks[0].name
    factors = kronecker_factors(problem, sharing=sharing)
    for found, expected in zip(factors[name], oracle.factors(sharing), strict=True):
        _close(found, expected, CLOSED_FORM)
    bases = kronecker_bases(problem, factors)
    q_s, q_a = bases[name].outputs.vectors.numpy(), bases[name].inputs.vectors.numpy()
    found = ggn_diagonals(problem, bases)[name]
    _close(found, oracle.eigenvalues(q_s, q_a), CLOSED_FORM)


@pytest.mark.parametrize("sharing", SHARING)
def test_dense_kfac_is_the_kronecker_product_of_its_factors(general: Problem, sharing: str) -> None:
    """⊕_g A_g ⊗ S_g: rows (i, p) and columns (j, q) of a group's [W | b] have S_ij A_pq."""
    factors = kronecker_factors(general, sharing=sharing)
    blocks = KFAC(sharing=sharing)(general).diagonal_blocks()
    for block in general.blocks:
        if not isinstance(block, LinearBlock):
            continue
        a, s = factors[block.name]
        units = block.to_matrix(torch.eye(block.size, dtype=torch.float64)).flatten(0, 1)
        groups = zip(s.reshape(-1, *s.shape[-2:]), a.reshape(-1, *a.shape[-2:]), strict=True)
        product = torch.block_diag(*(torch.kron(*pair) for pair in groups))
        _close(blocks[block.name].dense(), units.T @ product @ units, EXACT)


def linear(pooled: bool, width: int = 4) -> Problem:
    """A deep linear network at every position, for the squared error."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = model.out(model.inner(x))
        return h.mean(1) if pooled else h.flatten(1)

    return cases.regression(
        lambda: Applied(forward, inner=nn.Linear(width, 3), out=nn.Linear(3, 2)),
        cases.images(cases.T, width),
        2 if pooled else 2 * cases.T,
    )


def linear_convolutions(pooled: bool) -> Problem:
    """Disjoint patches, then convolutions of single positions."""

    def build() -> nn.Module:
        last = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        layers = (nn.Conv2d(1, 3, 2, stride=2), nn.Conv2d(3, 2, 1), last, nn.Flatten())
        return nn.Sequential(*layers)

    return cases.regression(build, cases.images(1, 4, 4), 2 if pooled else 8)


@pytest.mark.parametrize("build", [linear, linear_convolutions])
@pytest.mark.parametrize(("sharing", "pooled"), [("expand", False), ("reduce", True)])
def test_exact_for_deep_linear_networks(build: Callable, sharing: str, pooled: bool) -> None:
    """Expand where each output depends on one position, reduce where outputs pool them: K = B."""
    problem = build(pooled)
    blocks = build_chain(problem)["block_ggn"].dense()
    for rung in (EKFAC, KFAC):
        _close(rung(sharing=sharing)(problem).dense(), blocks, EXACT)


@pytest.mark.parametrize(("sharing", "pooled"), [("reduce", False), ("expand", True)])
def test_not_exact_in_the_other_setting(sharing: str, pooled: bool) -> None:
    problem = linear(pooled)
    blocks = build_chain(problem)["block_ggn"].dense()
    error = torch.linalg.norm(KFAC(sharing=sharing)(problem).dense() - blocks)
    assert error > 1e-2 * torch.linalg.norm(blocks)


@pytest.mark.parametrize("case", ["batch_norm", "frozen", "two_inputs"])
def test_with_one_position_expand_is_reduce(case: str) -> None:
    problem = cases.GENERAL[case]()
    _close(KFAC(sharing="reduce")(problem).dense(), KFAC()(problem).dense(), EXACT)


def test_with_one_example_and_one_position_kfac_is_exact() -> None:
    x = cases.images(2, 3, 3)
    problem = cases.study(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3, cases.CLASSES)
        ),
        x,
        n=1,
    )
    chain = build_chain(problem)
    _close(chain["kfac"].dense(), chain["block_ggn"].dense(), EXACT)


class Unfolded(nn.Module):
    """Patches of images as a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        rows = padded.unfold(2, 3, 2).unfold(3, 3, 2)  # (n, channels, h, w, 3, 3)
        return rows.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)


def test_a_convolution_is_a_linear_layer_on_its_patches() -> None:
    """Same parameters, same H, G, factors, and every rung of the lattice."""
    convolved = cases.conv2d_strided()
    model = convolved.double_model()
    inner = nn.Linear(18, 3).double()
    with torch.no_grad():
        inner.weight.copy_(model[0].weight.flatten(1))
        inner.bias.copy_(model[0].bias)
    unfolded = Problem(
        Applied(
            lambda m, x: m.out(torch.tanh(m.inner(Unfolded()(x))).transpose(1, 2).flatten(1)),
            inner=inner,
            out=model[3],
        ),
        convolved.loss,
        convolved.train,
        convolved.query,
    )
    torch.testing.assert_close(convolved.theta(), unfolded.theta(), rtol=0, atol=0)
    for sharing in SHARING:
        pairs = zip(
            kronecker_factors(convolved, sharing=sharing).values(),
            kronecker_factors(unfolded, sharing=sharing).values(),
            strict=True,
        )
        for mine, other in pairs:
            _close(mine[0], other[0], EXACT)
            _close(mine[1], other[1], EXACT)
    one, other = build_lattice(convolved), build_lattice(unfolded)
    for rung in LATTICE:
        _close(one[rung].dense(), other[rung].dense(), 1e-10)


@pytest.mark.parametrize("sharing", SHARING)
def test_order_duplication_and_batches_change_no_factor(
    general: Problem, sharing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kronecker_factors(general, sharing=sharing)
    x, y = general.train
    rows = [*reversed(range(general.num_examples)), *range(general.num_examples)]
    twice = Problem(general.model, general.loss, (take(x, rows), y[rows]), general.query)
    monkeypatch.setattr(layer_terms, "BATCH_BYTES", 1)
    largest = max(float(s.abs().max()) for _, s in whole.values()) if whole else 0.0
    for name, (a, s) in kronecker_factors(twice, sharing=sharing).items():
        _close(a, whole[name][0], EXACT)
        # reduced, an attention's keys have no S but rounding: it is rounding of what others have
        _close(s, whole[name][1], EXACT, floor=1e-3 * largest)


def test_another_sharing_is_refused() -> None:
    with pytest.raises(DecompositionError, match="expand or reduce, got 'unfold'"):
        kronecker_factors(cases.sequence(), sharing="unfold")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("case", list(cases.GENERAL))
def test_rows_of_the_jacobian_are_products_of_terms(case: str) -> None:
    """Σ_t s_t ⊗ a_t: their second moment is G's block, and what the layer returns is [W | b] a."""
    problem = cases.GENERAL[case]()
    blocks = build_chain(problem)["block_ggn"].diagonal_blocks()
    sums: dict[str, Tensor] = {}
    for terms in fisher_terms(problem):
        for block in problem.blocks:
            if isinstance(block, LinearBlock):
                a, s = terms.inputs[block.name], terms.roots[block.name]
                groups = [(s, a)] if block.groups == 1 else zip(s, a, strict=True)
                rows = [torch.einsum("nkti,ntj->nkij", *group).flatten(0, 1) for group in groups]
                flat = block.from_matrix(torch.cat(rows, 1).permute(1, 2, 0))
                sums[block.name] = sums.get(block.name, 0) + flat @ flat.T / problem.num_examples
    for name, second in sums.items():
        _close(second, blocks[name].dense(), EXACT)
