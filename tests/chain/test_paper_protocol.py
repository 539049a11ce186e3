"""The ladder between the protocols: connected, one change at a time, and fit for shares."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch

from decomposition.chain import CHAIN, EKFAC, KFAC, STEPS, BlockGGN, build_chain
from decomposition.chain.paper_protocol import LADDERS, PAPER_CHAIN, ladder_rungs
from decomposition.chain.rungs import HessianRung, Rung
from decomposition.damping import Absolute
from decomposition.scores.bootstrap import Draws
from decomposition.scores.gradients import loss_gradients
from decomposition.shares.steps import Step, step_shares
from tests import cases

CONTROLLED: dict[str, Rung] = {
    "hessian": HessianRung(Absolute()),
    "block_ggn": BlockGGN(),
    "ekfac": EKFAC(),
    "kfac": KFAC(),
}
STEPS_OF_LADDERS = [step for ladder in LADDERS.values() for step in ladder]


@pytest.mark.parametrize("ladder", [*LADDERS.values(), PAPER_CHAIN])
def test_every_step_starts_where_the_one_before_ends(ladder: tuple[Step, ...]) -> None:
    for one, following in itertools.pairwise(ladder):
        assert one.after == following.before


def test_ladders_start_on_the_chain_and_end_on_the_papers() -> None:
    nodes = [PAPER_CHAIN[0].before, *(step.after for step in PAPER_CHAIN)]
    ends = {ladder[0].before: ladder[-1].after for ladder in LADDERS.values()}
    assert [ends.get(rung, rung) for rung in CHAIN] == [*nodes[:4], nodes[5]]


def test_the_eigenvalue_step_changes_eigenvalues_alone() -> None:
    assert tuple(step.name for step in PAPER_CHAIN) == (*STEPS, "factored_damping")
    step = PAPER_CHAIN[STEPS.index("eigenvalues")]
    chain = build_chain(cases.tanh(), ladder_rungs())
    before, after = (chain[node].eigenbasis for node in (step.before, step.after))
    assert before is not None
    assert after is not None
    assert before.basis_key() == after.basis_key()
    for damping in (1e-3, 1.0):
        assert torch.equal(before.spectrum().added(damping), after.spectrum().added(damping))
    assert PAPER_CHAIN[-1] == LADDERS["kfac"][-1]


@pytest.mark.parametrize("step", STEPS_OF_LADDERS, ids=lambda step: step.after)
def test_every_step_changes_one_choice(step: Step) -> None:
    rungs = ladder_rungs() | CONTROLLED
    before, after = rungs[step.before], rungs[step.after]
    assert type(before) is type(after)
    choices = vars(before)
    assert len([one for one in choices if choices[one] != vars(after)[one]]) == 1


def test_the_rungs_of_the_ladders_are_those_built() -> None:
    nodes = {node for step in STEPS_OF_LADDERS for node in (step.before, step.after)}
    assert nodes == set(ladder_rungs()) | set(LADDERS)
    chain = build_chain(cases.tanh(), ladder_rungs())
    assert list(chain) == [*CHAIN, *ladder_rungs()]


def test_another_seed_draws_other_labels() -> None:
    problem = cases.tanh()
    first, again, other = (
        build_chain(problem, ladder_rungs(seed))["kfac_split_mc1"].dense() for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_rungs_travel_between_processes() -> None:
    assert pickle.loads(pickle.dumps(ladder_rungs(4))) == ladder_rungs(4)


def test_every_choice_has_a_share_of_its_own() -> None:
    """Levels of the ladder's rungs through the machinery of the chain's shares."""
    problem = cases.tanh()
    chain = build_chain(problem, ladder_rungs())
    gradients = loss_gradients(problem)
    exact = chain["kfac"].solve(gradients.query, 0.1)
    nodes = list(chain)
    level = np.array(
        [-float((chain[n].solve(gradients.query, 0.1) - exact).square().sum()) for n in nodes]
    )
    levels = Draws(level, np.tile(level, (10, 1)))
    found = step_shares(levels, nodes, LADDERS["kfac"])
    assert found.steps == ("separate_bias", "one_sample", "factored_damping")
    assert found.share[:, 1].sum() == pytest.approx(1.0)
    paper = step_shares(levels, nodes, PAPER_CHAIN)
    assert paper.steps == (*STEPS, "factored_damping")
    assert paper.total[1] == pytest.approx(
        level[nodes.index("hessian_truncated")] - level[nodes.index("kfac_split_mc1_pi")]
    )
