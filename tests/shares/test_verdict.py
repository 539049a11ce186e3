"""The verdict: resolved where the data support it, and what it would take where not."""

import numpy as np
import pytest

from decomposition.scores.bootstrap import VarianceParts
from decomposition.shares.verdict import holm, masks_needed, verdict
from tests.shares.planted import NODES, planted_levels


def test_a_dominant_step_is_named() -> None:
    levels, parts = planted_levels((0.8, 0.78, 0.45, 0.42, 0.4))
    found = verdict(levels, parts, 400, NODES)
    assert (found.candidate, found.resolved, found.more_masks) == ("cross_layer", True, 0)
    assert found.text.startswith("largest: cross_layer, probability")
    assert set(found.adjusted) == {"linearisation", "eigenbasis", "eigenvalues", "no loss"}


def test_two_close_steps_are_not_resolved() -> None:
    levels, parts = planted_levels((0.8, 0.6, 0.395, 0.39, 0.38), masks=100)
    found = verdict(levels, parts, 100, NODES)
    assert not found.resolved
    assert found.probability < 0.95
    assert found.text.startswith("not resolved: ")


def test_the_number_of_further_masks_is_of_the_right_size() -> None:
    fidelity = (0.7, 0.6, 0.43, 0.42, 0.41)
    levels, parts = planted_levels(fidelity, masks=40, queries=200, seed=2)
    found = verdict(levels, parts, 40, NODES)
    assert not found.resolved
    assert found.more_masks is not None
    assert "more masks would resolve it" in found.text
    levels, parts = planted_levels(fidelity, masks=4 * (40 + found.more_masks), queries=200)
    assert verdict(levels, parts, 40, NODES).resolved


def test_nothing_but_improvements_has_no_largest_loss() -> None:
    levels, parts = planted_levels((0.3, 0.4, 0.6, 0.7, 0.8))
    found = verdict(levels, parts, 400, NODES)
    assert not found.resolved
    assert found.adjusted["no loss"] == 1.0


def test_an_undefined_level_is_not_resolved() -> None:
    levels, parts = planted_levels((0.8, 0.7, 0.5, 0.4, 0.3))
    levels.estimate[2] = np.nan
    found = verdict(levels, parts, 400, NODES)
    assert not found.resolved
    assert "cross_layer" in found.text


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])


def test_masks_needed_solves_its_equation() -> None:
    needed = masks_needed(0.1, (0.004, 0.001, 0.0), masks=100, level=0.95)
    assert needed is not None
    z = 1.6448536269514722
    assert z * np.sqrt(0.004 * 100 / needed + 0.001) == pytest.approx(0.1, rel=0.01)


def test_masks_cannot_make_up_for_queries() -> None:
    assert masks_needed(0.01, (0.004, 0.001, 0.0), masks=100) is None


def test_a_contrast_splits_its_variance_by_source() -> None:
    parts = VarianceParts(np.diag([1.0, 2.0]), np.ones((2, 2)), np.zeros((2, 2)))
    assert parts.contrast(np.array([1.0, -1.0])) == (3.0, 0.0, 0.0)
