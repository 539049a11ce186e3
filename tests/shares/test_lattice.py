"""Orders, Shapley values and interactions against enumeration by brute force."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decomposition.scores.bootstrap import Draws
from decomposition.shares.lattice import (
    CURVATURE,
    NODES,
    Lattice,
    drops_by_order,
    lattice_shares,
    shapley,
)
from decomposition.shares.steps import ShareError
from tests.shares.planted import random_levels

NAMES = tuple(NODES)
STEPS = CURVATURE.steps
LEVEL = st.floats(-1.0, 1.0)


def exact(levels) -> Draws:
    values = np.asarray(levels, dtype=float)
    return Draws(values, values[None])


def brute_force(levels: dict[frozenset[str], float], steps: tuple[str, ...]) -> dict[str, float]:
    """Mean marginal loss over all permutations that stay within the given sets."""
    sums, count = dict.fromkeys(steps, 0.0), 0
    for order in permutations(steps):
        prefixes = [frozenset(order[:k]) for k in range(len(steps) + 1)]
        if all(prefix in levels for prefix in prefixes):
            count += 1
            for step, before, after in zip(order, prefixes, prefixes[1:], strict=False):
                sums[step] += levels[before] - levels[after]
    return {step: value / count for step, value in sums.items()}


def test_seven_nodes_and_exactly_three_orders() -> None:
    assert len(CURVATURE.taken) == 7
    assert [[step.name for step in order] for order in CURVATURE.orders] == [
        ["linearisation", "cross_layer", "eigenbasis", "eigenvalues"],
        ["cross_layer", "linearisation", "eigenbasis", "eigenvalues"],
        ["cross_layer", "eigenbasis", "linearisation", "eigenvalues"],
    ]


def test_every_order_runs_from_hessian_to_kfac() -> None:
    for order in CURVATURE.orders:
        assert order[0].before == "hessian"
        assert order[-1].after == "kfac"


@settings(derandomize=True, deadline=None)
@given(st.lists(LEVEL, min_size=7, max_size=7))
def test_shapley_equals_brute_force(levels: list[float]) -> None:
    found = shapley(drops_by_order(exact(levels), NAMES)).estimate
    by_set = {NODES[name].taken: value for name, value in zip(NAMES, levels, strict=True)}
    expected = brute_force(by_set, STEPS)
    np.testing.assert_allclose(found, [expected[step] for step in STEPS], atol=1e-12)


@settings(derandomize=True, deadline=None)
@given(st.lists(LEVEL, min_size=7, max_size=7))
def test_efficiency_drops_sum_to_the_total_along_every_order(levels: list[float]) -> None:
    by_order = drops_by_order(exact(levels), NAMES)
    total = levels[NAMES.index("hessian")] - levels[NAMES.index("kfac")]
    np.testing.assert_allclose(by_order.estimate.sum(1), total, atol=1e-12)
    np.testing.assert_allclose(shapley(by_order).estimate.sum(), total, atol=1e-12)


FREE = tuple("xyz")
SETS = tuple(frozenset(c) for size in range(4) for c in combinations(FREE, size))
CUBE = Lattice({"".join(sorted(s)) or "none": s for s in SETS}, FREE)


@settings(derandomize=True, deadline=None)
@given(st.lists(LEVEL, min_size=8, max_size=8))
def test_symmetry_interchangeable_steps_have_equal_values(levels: list[float]) -> None:
    level = dict(zip(CUBE.taken, levels, strict=True))
    # y is made to act exactly as x does.
    level["y"], level["yz"] = level["x"], level["xz"]
    value = shapley(drops_by_order(exact(list(level.values())), tuple(level), CUBE)).estimate
    assert value[0] == pytest.approx(value[1], abs=1e-12)


@settings(derandomize=True, deadline=None)
@given(st.lists(LEVEL, min_size=4, max_size=4))
def test_a_step_without_effect_gets_nothing(levels: list[float]) -> None:
    without = {"none": levels[0], "x": levels[1], "y": levels[2], "xy": levels[3]}
    level = {name: without[name.replace("z", "") or "none"] for name in CUBE.taken}
    found = lattice_shares(exact(list(level.values())), tuple(level), CUBE)
    np.testing.assert_allclose(found.shapley[2], 0.0, atol=1e-15)


def test_additive_levels_do_not_depend_on_the_order() -> None:
    cost = dict(zip(STEPS, (0.1, 0.4, 0.05, 0.2), strict=True))
    levels = [1.0 - sum(cost[step] for step in NODES[name].taken) for name in NAMES]
    found = lattice_shares(exact(levels), NAMES)
    np.testing.assert_allclose(found.spread, 0.0, atol=1e-12)
    for values in (found.shapley, found.first, found.last):
        np.testing.assert_allclose(values[:, 1], list(cost.values()))
    for interaction in found.interactions:
        np.testing.assert_allclose(interaction.value, 0.0, atol=1e-12)


def test_first_and_last_marginals_by_hand() -> None:
    level = dict(zip(NAMES, np.random.default_rng(1).normal(size=7), strict=True))
    found = lattice_shares(exact(list(level.values())), NAMES)
    np.testing.assert_allclose(found.first[0], level["hessian"] - level["ggn"])
    np.testing.assert_allclose(found.last[0], level["ekfac_hessian"] - level["ekfac"])
    np.testing.assert_allclose(found.first[2], level["block_hessian"] - level["ekfac_hessian"])
    np.testing.assert_allclose(found.last[1], level["ggn"] - level["block_ggn"])


def test_interactions_by_hand() -> None:
    level = dict(zip(NAMES, np.random.default_rng(2).normal(size=7), strict=True))
    found = lattice_shares(exact(list(level.values())), NAMES).interactions
    assert [(one.step, one.after, one.at) for one in found] == [
        ("cross_layer", "linearisation", "hessian"),
        ("eigenbasis", "linearisation", "block_hessian"),
    ]
    late, early = level["ggn"] - level["block_ggn"], level["hessian"] - level["block_hessian"]
    assert found[0].value[1] == pytest.approx(late - early)


def test_resamples_are_carried_through() -> None:
    levels = random_levels(7)
    found = lattice_shares(levels, NAMES, level=0.9)
    one_by_one = [shapley(drops_by_order(exact(draw), NAMES)).estimate for draw in levels.draws]
    np.testing.assert_allclose(found.shapley[:, 0], np.percentile(one_by_one, 5, axis=0))
    np.testing.assert_allclose(found.shapley[:, 2], np.percentile(one_by_one, 95, axis=0))


def test_noise_is_undefined() -> None:
    draws = np.random.default_rng(6).normal(size=(200, 7))
    found = lattice_shares(Draws(np.zeros(7), draws), NAMES)
    assert not found.defined
    assert np.isnan(found.shapley_share).all()
    assert np.isnan(found.share_by_order).all()


def test_a_missing_node_is_named() -> None:
    with pytest.raises(ShareError, match="rung 'kfac'"):
        lattice_shares(random_levels(5), ("hessian", "ggn", "block_hessian", "block_ggn", "ekfac"))


def test_a_lattice_without_an_order_is_an_error() -> None:
    broken = Lattice({"none": frozenset(), "xy": frozenset("xy")}, ("x", "y"))
    with pytest.raises(ShareError, match="no order of x, y"):
        _ = broken.orders
