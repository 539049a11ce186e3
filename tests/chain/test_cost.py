"""What rungs cost by themselves: counts that can be made by hand, and orders that must hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from decomposition import Problem
from decomposition.chain.approximations import approximations
from decomposition.chain.cost import Cost, Costs, Work, forward_operations
from decomposition.chain.plan import plan_chain
from decomposition.chain.rungs import KFAC, sampled_kfac
from decomposition.names import CHAIN

N, IN, OUT = 20, 5, 3
ALL = "diagonal,kfac_trace,kpsvd,low_rank:4,projected:4,projected_layers:2,datainf,neumann:3,cg:3"


def linear(examples: int = N) -> Problem:
    """One layer without bias: P = 15, F = 2 · 15."""
    x = torch.randn(examples + 4, IN, generator=torch.Generator().manual_seed(0))
    y = torch.arange(examples + 4) % OUT
    model = nn.Sequential(nn.Linear(IN, OUT, bias=False))
    return Problem(model, nn.CrossEntropyLoss(), (x[:-4], y[:-4]), (x[-4:], y[-4:]))


def costs(problem: Problem, memory: int = 1 << 34) -> Costs:
    return Costs(problem, plan_chain(problem, memory))


def test_a_forward_pass_is_counted_by_its_matrix_products() -> None:
    assert forward_operations(linear()) == 2 * IN * OUT
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, OUT))
    x, y = torch.randn(9, 1, 4, 4), torch.arange(9) % OUT
    problem = Problem(convolution, nn.CrossEntropyLoss(), (x[:6], y[:6]), (x[6:], y[6:]))
    assert forward_operations(problem) == 2 * (4 * 2 * 9 + 8 * OUT)


def test_kfac_by_hand() -> None:
    """N forward and N·C backward passes, both factors, their eigendecompositions."""
    found = costs(linear()).kfac()
    assert (found.build.examples, found.build.backward) == (N, N * OUT)
    assert found.build.multiplications == N * (IN**2 + OUT * OUT**2)
    assert found.decompose.cubes == IN**3 + OUT**3
    assert costs(linear()).operations(found.decompose) == 9 * (IN**3 + OUT**3)


def test_a_product_costs_six_forward_passes_of_all_examples() -> None:
    counted = costs(linear())
    assert counted.operations(Work(products=2)) == 2 * 6 * N * 2 * IN * OUT


def test_one_sample_costs_one_backward_pass() -> None:
    counted = costs(linear())
    assert sampled_kfac().cost(counted).build.backward == N
    assert KFAC().cost(counted).build.backward == N * OUT


def test_every_step_of_the_chain_is_cheaper_from_blocks_on() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(IN, 40), nn.Tanh(), nn.Linear(40, OUT))
    problem = replace(linear(), model=model)
    counted = costs(problem)
    total = [counted.operations(counted.of(rung).at_once(4)) for rung in CHAIN]
    assert total == sorted(total, reverse=True)
    assert counted.of("kfac").memory < counted.of("hessian").memory


def test_blocks_are_charged_for_blocks() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 6) for _ in range(10)]
    x, y = torch.randn(24, 6), torch.arange(24) % 6
    problem = Problem(
        nn.Sequential(*layers), nn.CrossEntropyLoss(), (x[:20], y[:20]), (x[20:], y[20:])
    )
    whole, blocks = costs(problem).ggn(), costs(problem).block_ggn()
    assert blocks.build.multiplications == pytest.approx(whole.build.multiplications / 10)
    assert blocks.decompose.cubes == pytest.approx(whole.decompose.cubes / 100)


@pytest.mark.parametrize("memory", [1 << 34, 1 << 13])
def test_every_approximation_is_counted_in_every_form(memory: int) -> None:
    counted = costs(linear(), memory)
    assert counted.plan.dense == (memory > 1 << 20)
    for name, method in approximations(ALL).items():
        found = method.cost(counted)
        assert counted.operations(found.at_once(1)) > 0, name
        more = counted.operations(found.at_once(9, dampings=3))
        assert more > counted.operations(found.at_once(9)) > counted.operations(found.at_once(1))


def test_a_preconditioned_solver_starts_anew_at_every_damping() -> None:
    plain, anew = (approximations(name)[name] for name in ("cg:3", "cg:3:ekfac"))
    counted = costs(linear())
    found: list[Cost] = [one.cost(counted) for one in (plain, anew)]
    assert counted.operations(found[0].again) < 0.5 * counted.operations(found[0].solve)
    assert found[1].again == found[1].solve
