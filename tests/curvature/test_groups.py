"""Grouped convolutions: one Kronecker product for each group, in one block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition.chain import EKFAC, KFAC, build_chain
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.factors import kronecker_factors
from decomposition.layers import LinearBlock
from decomposition.problem import Problem
from tests import general as cases
from tests.models import Applied

EXACT, CLOSED_FORM, CROSS_LIBRARY = 1e-12, 1e-8, 1e-6
SHARING = ["expand", "reduce"]


def _close(actual: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def depthwise(bias: bool = True) -> Problem:
    """Two filters for each of three channels of a sequence, padded around its ends."""

    def build() -> nn.Module:
        first = nn.Conv1d(
            3, 6, 3, stride=2, padding=1, padding_mode="circular", groups=3, bias=bias
        )
        return nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.Linear(24, cases.CLASSES))

    return cases.study(build, cases.images(3, 7))


def images() -> Problem:
    """One filter for each of two channels."""
    return cases.convolved(lambda: nn.Conv2d(2, 2, (2, 3), padding=1, groups=2), 24, 2, 3, 3)


GROUPED: dict[str, Callable[[], Problem]] = {
    "depthwise": depthwise,
    "depthwise without bias": lambda: depthwise(False),
    "depthwise in two dimensions": images,
    "two groups": cases.conv_grouped,
}


def apart(problem: Problem) -> tuple[Problem, Tensor, int]:
    """The model with a convolution for every group on its channels alone.

    Also: where each of its parameters stands in the grouped model, and the number of groups.
    """
    model = problem.double_model()
    place = next(i for i, part in enumerate(model) if getattr(part, "groups", 1) > 1)
    whole = model[place]
    count, rows = whole.groups, whole.out_channels // whole.groups
    kind = type(whole)
    parts = nn.ModuleList()
    for g in range(count):
        options = {
            name: getattr(whole, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        part = kind(
            whole.in_channels // count, rows, bias=whole.bias is not None, **options
        ).double()
        with torch.no_grad():
            part.weight.copy_(whole.weight[g * rows : (g + 1) * rows])
            if whole.bias is not None:
                part.bias.copy_(whole.bias[g * rows : (g + 1) * rows])
        parts.append(part)

    def forward(m: nn.Module, h: Tensor) -> Tensor:
        return torch.cat([part(x) for part, x in zip(m.parts, h.chunk(count, 1), strict=True)], 1)

    model[place] = Applied(forward, parts=parts)
    split = Problem(model, problem.loss, problem.train, problem.query)
    (block,) = [b for b in problem.blocks if isinstance(b, LinearBlock) and b.groups > 1]
    numbers = torch.arange(problem.num_parameters)
    columns = torch.split(numbers, [b.size for b in problem.blocks])
    order = []
    for b, own in zip(problem.blocks, columns, strict=True):
        if b is not block:
            order.append(own)
            continue
        split_at = block.d_out * block.d_in
        for g in range(count):
            order.append(own[:split_at].view(count, -1)[g])
            if block.bias:
                order.append(own[split_at:].view(count, -1)[g])
    return split, torch.cat(order), count


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("case", GROUPED)
def test_a_grouped_convolution_is_a_convolution_for_each_group(case: str, sharing: str) -> None:
    """Same G; K-FAC and EK-FAC are those of the convolutions apart; B couples the groups."""
    problem = GROUPED[case]()
    split, order, count = apart(problem)
    _close(problem.theta()[order], split.theta())
    extra = {"e": EKFAC(sharing=sharing), "k": KFAC(sharing=sharing)}
    one, other = build_chain(problem, extra), build_chain(split, extra)
    for rung in ("ggn", "e", "k"):
        _close(one[rung].dense()[order][:, order], other[rung].dense())
    assert len(one["block_ggn"].diagonal_blocks()) == len(problem.blocks)
    gap = one["block_ggn"].frobenius_norm() ** 2 - other["block_ggn"].frobenius_norm() ** 2
    assert count > 1
    assert gap > 1e-3 * one["block_ggn"].frobenius_norm() ** 2


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("structure", ["kfac", "ekfac"])
@pytest.mark.parametrize("case", ["depthwise in two dimensions", "two groups"])
def test_curvlinops_agrees_on_the_groups_apart(case: str, structure: str, sharing: str) -> None:
    """It has neither grouped nor one-dimensional convolutions."""
    curvlinops = pytest.importorskip("curvlinops")
    problem = GROUPED[case]()
    split, order, _ = apart(problem)
    kinds = {"kfac": curvlinops.KFACLinearOperator, "ekfac": curvlinops.EKFACLinearOperator}
    model = split.double_model()
    operator = kinds[structure](
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [split.train],
        fisher_type="type-2",
        kfac_approx=sharing,
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    found = {"kfac": KFAC, "ekfac": EKFAC}[structure](sharing=sharing)(problem)
    if any("curvature all the same" in note for note in found.notes):
        assert (structure, sharing) == ("ekfac", "reduce")
        return
    _close(
        found.dense()[order][:, order],
        operator @ torch.eye(split.num_parameters, dtype=torch.float64),
        CROSS_LIBRARY,
    )


@pytest.mark.parametrize("case", GROUPED)
def test_exact_blocks_of_the_groups_are_dropped_at_their_coupling_alone(case: str) -> None:
    """E has the trace of B, and no diagonal in its basis is nearer to B."""
    chain = build_chain(GROUPED[case]())
    ekfac, blocks = chain["ekfac"], chain["block_ggn"]
    q = ekfac.from_basis(torch.eye(ekfac.size, dtype=torch.float64))
    _close(q.T @ q, torch.eye(ekfac.size, dtype=torch.float64))
    _close(ekfac.basis_values(), (q.T @ blocks.dense() @ q).diagonal())
    assert ekfac.trace() == pytest.approx(blocks.trace(), rel=1e-12)


def linear(mixed: bool) -> Problem:
    """Disjoint patches in two groups, which meet in the outputs, or never."""

    def build() -> nn.Module:
        last = nn.Conv2d(4, 2, 1, groups=1 if mixed else 2)
        return nn.Sequential(nn.Conv2d(2, 4, 2, stride=2, groups=2), last, nn.Flatten())

    return cases.regression(build, cases.images(2, 4, 4), 8)


def test_exact_for_deep_linear_networks_whose_outputs_depend_on_one_group() -> None:
    problem = linear(mixed=False)
    blocks = build_chain(problem)["block_ggn"].dense()
    for rung in (EKFAC, KFAC):
        _close(rung()(problem).dense(), blocks)


def test_where_outputs_mix_the_groups_each_is_exact_by_itself() -> None:
    problem = linear(mixed=True)
    chain = build_chain(problem)
    (first, _), (exact, _) = (
        chain[rung].diagonal_blocks().values() for rung in ("kfac", "block_ggn")
    )
    block = problem.blocks[0]
    assert isinstance(block, LinearBlock)
    numbers = block.to_matrix(torch.arange(block.size)[:, None]).view(2, -1)
    kfac, full = first.dense(), exact.dense()
    for own in numbers:
        _close(kfac[own][:, own], full[own][:, own])
    mine, other = numbers
    assert not kfac[mine][:, other].any()
    assert torch.linalg.norm(full[mine][:, other]) > 1e-2 * torch.linalg.norm(full)


@pytest.mark.parametrize("damping", [1e-3, 1.0])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("case", GROUPED)
def test_factored_damping_is_balanced_group_by_group(
    case: str, separate: bool, damping: float
) -> None:
    """S_g⁻¹ [W | b]_g A_g⁻¹ with both damped, or the bias with its weight's damped S alone."""
    problem = GROUPED[case]()
    (block,) = [b for b in problem.blocks if isinstance(b, LinearBlock) and b.groups > 1]
    curvature = KFAC(separate_bias=separate, factored_damping=True)(problem)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, generator=generator, dtype=torch.float64)
    solved = curvature.solve(v, damping)
    m, found = (
        block.to_matrix(part[block.slice, None])[..., 0].view(block.groups, -1, block.width)
        for part in (v, solved)
    )
    d = block.d_in if separate else block.width
    for g, (a, s) in enumerate(zip(*kronecker_factors(problem)[block.name], strict=True)):
        a, s = a[:d, :d].numpy(), s.numpy()
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(s) / len(s)))
        damped_a = a + pi * damping**0.5 * np.eye(len(a))
        damped_s = s + damping**0.5 / pi * np.eye(len(s))
        weight = np.linalg.solve(damped_a, np.linalg.solve(damped_s, m[g, :, :d].numpy()).T).T
        np.testing.assert_allclose(found[g, :, :d], weight, rtol=CLOSED_FORM)
        rest = np.linalg.solve(damped_s, m[g, :, d:].numpy())
        np.testing.assert_allclose(found[g, :, d:], rest, rtol=CLOSED_FORM)


@pytest.mark.parametrize("case", GROUPED)
def test_the_dual_of_a_grouped_convolution_is_its_ggn(case: str) -> None:
    problem = GROUPED[case]()
    chain = build_chain(problem)
    eye = torch.eye(problem.num_parameters, dtype=torch.float64)
    for dual, rung in zip(dual_rungs(problem), ("ggn", "block_ggn"), strict=True):
        _close(dual.matvec(eye), chain[rung].dense())


def test_repeated_eigenvalues_are_counted_through_the_groups() -> None:
    """The squared error of a linear model has S_g = 2 / C · I."""
    model = nn.Sequential(nn.Conv1d(2, 4, 2, groups=2, bias=False), nn.Flatten()).double()
    x = torch.ones(cases.N + cases.QUERIES, 2, 2, dtype=torch.float64)
    y = cases.normal(cases.N + cases.QUERIES, 4)
    problem = Problem(
        model, nn.MSELoss(), (x[:8], y[:8]), (x[8:], y[8:]), allow_query_in_train=True
    )
    (note,) = KFAC()(problem).notes
    assert "output factor has repeated eigenvalues at 0–1, 2–3 (ascending, group after" in note
