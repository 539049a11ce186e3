"""What more masks and more repeats buy."""

import numpy as np
import pytest

from decomposition.scores.bootstrap import bootstrap, resample, variance_parts
from decomposition.scores.lds import linearise, mean_truth
from decomposition.shares.resolution import masks_curve, repeats_curve
from tests.scores.simulated import Population

FIRST = np.array([1.0, 0, 0, 0, 0])


def test_the_curve_passes_through_the_interval_at_hand() -> None:
    prediction, truth = Population().study(200, 30, 1, (47,))
    linear = linearise(prediction, mean_truth(truth))
    interval = bootstrap(linear, resample(200, 30, count=8000)).interval()[0]
    found = masks_curve(variance_parts(linear), FIRST, 200, np.array([200]))
    assert found.width[0] == pytest.approx(interval[2] - interval[0], rel=0.06)


def test_the_curve_foretells_a_larger_study() -> None:
    population = Population(spread=0.01, own_spread=0.01)
    widths = []
    for masks in (100, 400):
        prediction, truth = population.study(masks, 150, 1, (53, masks))
        parts = variance_parts(linearise(prediction, mean_truth(truth)))
        widths.append(masks_curve(parts, FIRST, masks, np.array([400])).width[0])
    assert widths[0] == pytest.approx(widths[1], rel=0.3)


def test_more_masks_never_widen_an_interval() -> None:
    prediction, truth = Population().study(100, 20, 1, (59,))
    found = masks_curve(variance_parts(linearise(prediction, mean_truth(truth))), FIRST, 100)
    assert (np.diff(found.width) <= 0).all()
    assert found.measured.sum() < len(found.amount)


def test_repeats_narrow_a_noisy_study_and_level_off() -> None:
    prediction, truth = Population(noise=6.0).study(300, 40, 6, (61,))
    found = repeats_curve(prediction[0], truth)
    assert found.amount[0] == 1
    assert found.amount[-1] == 24
    assert found.width[-1] < found.width[0]
    assert found.width[0] - found.width[5] > found.width[5] - found.width[-1]


def test_a_single_repeat_is_a_single_point() -> None:
    prediction, truth = Population().study(50, 10, 1, (67,))
    np.testing.assert_array_equal(repeats_curve(prediction[0], truth).amount, [1])
