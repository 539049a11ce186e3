"""Drops and shares on planted truths."""

import numpy as np
import pytest

from decomposition.scores.bootstrap import Draws
from decomposition.shares.steps import CHAIN, ShareError, Step, exact_shares, step_shares
from tests.shares.planted import NODES, planted_levels, random_levels


def test_a_harmless_step_has_share_zero_within_its_interval() -> None:
    # Both nodes have the same fidelity to the truth, with errors of their own.
    levels, _ = planted_levels((0.8, 0.8, 0.5, 0.4, 0.3))
    lower, _, upper = step_shares(levels, NODES).share[0]
    assert lower < 0.0 < upper
    assert upper - lower < 0.15


def test_a_step_that_changes_nothing_has_share_exactly_zero() -> None:
    levels = random_levels(4)
    columns = [0, 0, 1, 2, 3]
    same = Draws(levels.estimate[columns], levels.draws[:, columns])
    np.testing.assert_array_equal(step_shares(same, NODES).drop[0], 0.0)


def test_two_equal_steps_are_split_equally() -> None:
    nodes, steps = ("a", "b", "c"), (Step("first", "a", "b"), Step("second", "b", "c"))
    levels, _ = planted_levels((0.8, 0.55, 0.3), masks=1000)
    found = step_shares(levels, nodes, steps)
    # Spearman is not linear in the fidelity, but nearly: 0.25 in both steps.
    for lower, _, upper in found.share:
        assert lower < 0.51
        assert upper > 0.49
    np.testing.assert_allclose(found.share[:, 1], 0.5, atol=0.05)


def test_pure_noise_is_undefined() -> None:
    levels, _ = planted_levels((0.0, 0.0, 0.0, 0.0, 0.0))
    found = step_shares(levels, NODES)
    assert not found.defined
    assert np.isnan(found.share).all()
    assert np.isfinite(found.drop).all()


def test_shares_sum_to_one_and_drops_to_the_total() -> None:
    levels, _ = planted_levels((0.8, 0.7, 0.5, 0.4, 0.3))
    found = step_shares(levels, NODES)
    assert found.share[:, 1].sum() == pytest.approx(1.0)
    assert found.drop[:, 1].sum() == pytest.approx(found.total[1])


def test_negative_shares_stand() -> None:
    levels, _ = planted_levels((0.7, 0.85, 0.5, 0.4, 0.3))
    found = step_shares(levels, NODES)
    assert found.share[0, 2] < 0.0
    assert found.probability_degrades[0] < 0.01
    assert found.share[1:, 1].sum() > 1.0


def test_shares_equal_brute_force() -> None:
    levels = random_levels(5, seed=3)
    found = step_shares(levels, NODES, level=0.9)
    drops = levels.draws[:, :-1] - levels.draws[:, 1:]
    shares = drops / (levels.draws[:, [0]] - levels.draws[:, [-1]])
    assert found.defined
    np.testing.assert_allclose(found.share[:, 0], np.percentile(shares, 5, axis=0))
    np.testing.assert_allclose(found.share[:, 2], np.percentile(shares, 95, axis=0))
    np.testing.assert_allclose(found.probability_degrades, (drops > 0).mean(0))


def test_exact_terms_have_intervals_of_no_width() -> None:
    found = exact_shares(np.array([2.0, 1.0, -0.5]), ("a", "b", "cross_term"))
    np.testing.assert_allclose(found.share, np.array([[0.8], [0.4], [-0.2]]) * np.ones(3))
    assert found.defined


def test_exact_terms_without_a_total_are_undefined() -> None:
    found = exact_shares(np.array([0.3, -0.1, -0.2]), ("a", "b", "c"))
    assert not found.defined
    assert np.isnan(found.share).all()


def test_a_missing_node_is_named() -> None:
    with pytest.raises(ShareError, match="needs a level for rung 'kfac'"):
        step_shares(random_levels(4), NODES[:-1])


def test_steps_must_be_consecutive() -> None:
    with pytest.raises(ShareError, match="starts at block_ggn, but linearisation ends at ggn"):
        step_shares(random_levels(5), NODES, (CHAIN[0], CHAIN[2]))


def test_an_undefined_level_makes_the_total_undefined() -> None:
    levels = random_levels(5)
    levels.estimate[4] = np.nan
    levels.draws[:, 4] = np.nan
    found = step_shares(levels, NODES)
    assert not found.defined
    assert np.isfinite(found.drop[0]).all()
