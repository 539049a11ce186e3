"""The noise ceiling against the LDS that a perfect predictor really reaches."""

import numpy as np
import pytest

from decomposition.scores.bootstrap import Draws, resample
from decomposition.scores.ceiling import corrected, noise_ceiling, prophecy
from decomposition.scores.lds import ScoreError, lds, mean_truth


def noisy(masks: int = 400, repeats: int = 4, queries: int = 60, noise: float = 1.0, seed: int = 0):
    random = np.random.default_rng((13, seed))
    expected = random.normal(size=(masks, queries))
    scale = noise * np.exp(0.4 * random.normal(size=queries))
    truth = expected[:, None] + scale * random.normal(size=(masks, repeats, queries))
    return expected, truth


@pytest.mark.parametrize("repeats", [2, 3, 4, 10])
def test_split_half_ceiling_is_the_lds_of_the_expected_output(repeats: int) -> None:
    expected, truth = noisy(repeats=repeats)
    found = noise_ceiling(truth, None, resample(400, 60))
    assert found is not None
    assert found.source == "split_half"
    reached = lds(expected, mean_truth(truth)).mean
    assert found.ceiling.estimate == pytest.approx(reached, abs=0.012)


def test_second_order_ceiling_is_the_lds_of_the_expected_output() -> None:
    expected, truth = noisy(repeats=2)
    weights = resample(400, 60)
    found = noise_ceiling(truth[:, :1], truth[:150, 1], weights)
    assert found is not None
    assert (found.source, found.masks) == ("second_order", 150)
    reached = lds(expected, truth[:, 0]).mean
    lower, _, upper = found.ceiling.interval()
    assert lower - 0.012 < reached < upper + 0.012


def test_a_noise_free_truth_has_ceiling_one() -> None:
    _, truth = noisy(noise=0.0)
    found = noise_ceiling(truth, None, resample(400, 60, count=50))
    assert found is not None
    np.testing.assert_allclose(found.ceiling.interval(), 1.0, atol=1e-9)


def test_pure_noise_has_a_ceiling_near_zero() -> None:
    truth = np.random.default_rng(5).normal(size=(200, 4, 40))
    found = noise_ceiling(truth, None, resample(200, 40))
    assert found is not None
    assert found.agreement.interval()[0] < 0.0 < found.agreement.interval()[2]
    assert found.ceiling.interval()[0] == 0.0


def test_one_repeat_without_a_second_order_has_no_ceiling() -> None:
    _, truth = noisy(repeats=1)
    assert noise_ceiling(truth, None, resample(400, 60, count=10)) is None


def test_spearman_brown_composes() -> None:
    r = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(prophecy(prophecy(r, 2.0), 3.0), prophecy(r, 6.0))


def test_correction_divides_resample_by_resample() -> None:
    ceiling = Draws(np.array(0.5), np.array([0.5, 0.25, 0.0]))
    levels = Draws(np.array([0.4]), np.array([[0.4], [0.2], [0.1]]))
    found = corrected(levels, ceiling)
    np.testing.assert_allclose(found.estimate, [0.8])
    np.testing.assert_allclose(found.draws[:, 0], [0.8, 0.8, np.nan])


def test_second_outputs_must_fit() -> None:
    _, truth = noisy(repeats=1)
    with pytest.raises(ScoreError, match="second-order outputs must be"):
        noise_ceiling(truth, truth[:100, 0, :-1], resample(400, 60, count=10))


def test_more_repeats_raise_the_ceiling() -> None:
    _, truth = noisy(repeats=8)
    weights = resample(400, 60, count=10)
    few, many = noise_ceiling(truth[:, :2], None, weights), noise_ceiling(truth, None, weights)
    assert few is not None
    assert many is not None
    assert few.ceiling.estimate < many.ceiling.estimate
