"""The share of damping mismatch."""

import numpy as np
import pytest

from decomposition.scores.bootstrap import Draws
from decomposition.shares.mismatch import damping_mismatch
from decomposition.shares.steps import ShareError
from tests.shares.planted import random_levels


def test_mismatch_is_what_the_equal_total_has_over_the_tuned_one() -> None:
    equal, tuned = random_levels(5, seed=1), random_levels(5, seed=2)
    found = damping_mismatch(equal, tuned)
    tuned_total = tuned.estimate[0] - tuned.estimate[-1]
    assert found.mismatch[1] == pytest.approx(found.total[1] - tuned_total)
    assert found.mismatch_share[1] == pytest.approx(found.mismatch[1] / found.total[1])


def test_the_same_damping_leaves_no_gap() -> None:
    levels = random_levels(5)
    found = damping_mismatch(levels, levels)
    assert not found.gap.any()
    assert not found.mismatch.any()


def test_gaps_are_paired() -> None:
    equal = random_levels(3)
    tuned = Draws(equal.estimate + 0.1, equal.draws + 0.1)
    np.testing.assert_allclose(damping_mismatch(equal, tuned).gap, 0.1)


def test_undefined_when_the_equal_total_is_noise() -> None:
    draws = np.random.default_rng(0).normal(size=(100, 3))
    found = damping_mismatch(Draws(np.zeros(3), draws), random_levels(3, resamples=100))
    assert not found.defined
    assert np.isnan(found.share).all()


def test_protocols_must_share_resamples() -> None:
    with pytest.raises(ShareError, match="same \\(resamples, rungs\\)"):
        damping_mismatch(random_levels(3), random_levels(3, resamples=10))
