"""The linearised paired bootstrap against re-ranked resampling and brute force."""

import time

import numpy as np
import pytest

from decomposition.scores.bootstrap import Draws, bootstrap, resample, variance_parts
from decomposition.scores.lds import ScoreError, lds, linearise, mean_truth
from decomposition.scores.ranks import correlation, influence, rank
from tests.scores.simulated import Population, weighted_spearman


def small(masks: int = 60, queries: int = 8, seed: int = 0):
    prediction, truth = Population().study(masks, queries, 1, (11, seed))
    return prediction, mean_truth(truth)


def test_values_are_those_of_lds() -> None:
    prediction, truth = small()
    linear = linearise(prediction, truth)
    np.testing.assert_allclose(linear.per_query, lds(prediction, truth).per_query, atol=1e-12)
    np.testing.assert_allclose(linear.mean, lds(prediction, truth).mean, atol=1e-12)


def test_mask_effects_and_noise_equal_brute_force() -> None:
    prediction, truth = small(masks=20, queries=5)
    psi = np.stack(
        [[influence(rank(one[:, q]), rank(truth[:, q])) for q in range(5)] for one in prediction]
    )
    linear = linearise(prediction, truth)
    np.testing.assert_allclose(linear.mask_effects, psi.mean(1), atol=1e-12)
    residual = psi - psi.mean(1, keepdims=True)
    noise = np.einsum("cqm,dqm->cd", residual, residual) / (5 - 1) / 20**2
    np.testing.assert_allclose(linear.noise, noise, atol=1e-12)


def test_same_spread_as_ranking_anew_in_every_resample() -> None:
    prediction, truth = small(masks=300, queries=3)
    weights = resample(300, 3, count=150, seed=(1,))
    linear = linearise(prediction[:3], truth)
    fast = linear.mean + (weights.masks - 1.0) @ linear.mask_effects.T / 300
    for cell in range(3):
        by_query = [
            weighted_spearman(prediction[cell, :, q], truth[:, q], weights.masks) for q in range(3)
        ]
        slow = np.mean(by_query, axis=0)
        assert np.corrcoef(slow, fast[:, cell])[0, 1] > 0.98
        assert fast[:, cell].std() == pytest.approx(slow.std(), rel=0.06)


def test_two_way_draws_equal_brute_force_when_masks_add_no_noise() -> None:
    prediction, truth = small(masks=30, queries=6)
    linear = linearise(prediction, truth)
    still = type(linear)(
        linear.cells,
        linear.per_query,
        linear.mask_effects,
        np.zeros_like(linear.noise),
        linear.per_study,
    )
    weights = resample(30, 6, count=50)
    expected = linear.mean + (weights.masks - 1) @ linear.mask_effects.T / 30
    expected = expected + weights.queries @ linear.per_query.T / 6 - linear.mean
    np.testing.assert_allclose(bootstrap(still, weights).draws, expected, atol=1e-10)


def test_every_contrast_has_at_least_the_unbiased_and_at_most_the_uncorrected_variance() -> None:
    prediction, truth = small(masks=40, queries=12)
    linear = linearise(prediction, truth)
    queries = 12
    deviation = linear.per_query - linear.mean[:, None]
    observed = deviation @ deviation.T / queries
    kept = variance_parts(linear).queries * queries
    for difference in (observed - kept, kept - (observed - linear.noise)):
        assert np.linalg.eigvalsh(difference).min() > -1e-12


def test_cells_share_their_resamples() -> None:
    prediction, truth = small()
    doubled = np.stack([prediction[0], np.exp(prediction[0])])
    draws = bootstrap(linearise(doubled, truth), resample(60, 8, count=200))
    np.testing.assert_allclose(draws.draws[:, 0], draws.draws[:, 1], atol=1e-10)


def test_the_order_of_masks_changes_no_variance() -> None:
    prediction, truth = small()
    order = np.random.default_rng(4).permutation(60)
    one = variance_parts(linearise(prediction, truth))
    other = variance_parts(linearise(prediction[:, order], truth[order]))
    np.testing.assert_allclose(one.masks, other.masks, atol=1e-12)
    np.testing.assert_allclose(one.queries, other.queries, atol=1e-10)


def test_draws_have_the_variance_of_the_parts() -> None:
    prediction, truth = small()
    linear = linearise(prediction, truth)
    parts = variance_parts(linear)
    draws = bootstrap(linear, resample(60, 8, count=8000))
    expected = np.diag(parts.masks + parts.queries)
    np.testing.assert_allclose(draws.variance(), expected, rtol=0.08)


def test_folds_give_the_mean_of_the_folds() -> None:
    prediction, truth = small()
    folds = np.arange(60) % 3
    linear = linearise(prediction, truth, folds)
    separate = [lds(prediction[:, folds == f], truth[folds == f]).mean for f in range(3)]
    np.testing.assert_allclose(linear.mean, np.mean(separate, 0), atol=1e-12)
    for fold in range(3):
        np.testing.assert_allclose(linear.mask_effects[:, folds == fold].sum(1), 0, atol=1e-10)


def test_studies_are_averaged_and_resampled() -> None:
    count = 14
    studies = [small(seed=seed) for seed in range(count)]
    linear = linearise([p for p, _ in studies], [t for _, t in studies])
    single = [linearise(p, t).mean for p, t in studies]
    np.testing.assert_allclose(linear.mean, np.mean(single, 0), atol=1e-12)
    parts = variance_parts(linear)
    expected = np.var(single, axis=0, ddof=1) / count
    np.testing.assert_allclose(np.diag(parts.studies), expected, atol=1e-14)
    draws = bootstrap(linear, resample(60, 8, studies=count, count=8000))
    # Student's t with ν degrees of freedom has variance ν / (ν − 2).
    total = np.diag(parts.masks + parts.queries + parts.studies * (count - 1) / (count - 3))
    np.testing.assert_allclose(draws.variance(), total, rtol=0.08)


def test_a_single_study_adds_nothing() -> None:
    assert not resample(9, 4, studies=1, count=5).studies.any()


def test_an_undefined_query_is_left_out() -> None:
    prediction, truth = small()
    prediction[1, :, 3] = 0.0
    linear = linearise(prediction, truth)
    keep = [0, 1, 2, 4, 5, 6, 7]
    without = linearise(prediction[1:2][:, :, keep], truth[:, keep])
    np.testing.assert_allclose(linear.mean[1], without.mean[0])
    np.testing.assert_allclose(linear.mask_effects[1], without.mask_effects[0], atol=1e-12)
    assert np.isfinite(bootstrap(linear, resample(60, 8, count=50)).draws).all()


def test_a_cell_without_any_defined_query_is_nan_and_spoils_no_other() -> None:
    prediction, truth = small()
    prediction[2] = 1.0
    interval = bootstrap(linearise(prediction, truth), resample(60, 8, count=50)).interval()
    assert np.isnan(interval[2]).all()
    assert np.isfinite(interval[[0, 1, 3, 4]]).all()


def test_resamples_are_a_function_of_their_seed() -> None:
    one, same, other = (resample(9, 4, count=5, seed=(seed,)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.masks, same.masks)
    assert (one.masks != other.masks).any()
    np.testing.assert_array_equal(one.masks.sum(1), 9)


def test_correlation_by_hand_in_a_tiny_case() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 4.0, 3.0])
    assert correlation(rank(x), rank(y)) == pytest.approx(0.6)


def test_wrong_sizes_are_named() -> None:
    prediction, truth = small()
    with pytest.raises(ScoreError, match="59 masks do not fit 60 masks"):
        bootstrap(linearise(prediction, truth), resample(59, 8))
    with pytest.raises(ScoreError, match="at least one of masks, got 0"):
        resample(0, 8)
    with pytest.raises(ScoreError, match="a part of 0 of 60 masks"):
        linearise(prediction, truth, np.repeat([0, 2], 30))
    with pytest.raises(ScoreError, match="inside \\(0, 1\\), got 95"):
        Draws(np.zeros(1), np.zeros((3, 1))).interval(95)


@pytest.mark.slow
def test_the_default_study_is_bootstrapped_in_thirty_seconds() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=(1000, 180)).astype(np.float32)
    prediction = random.normal(size=(8, 25, 1000, 180)).astype(np.float32) + truth
    start = time.perf_counter()
    draws = bootstrap(linearise(prediction, truth), resample(1000, 180, count=2000))
    assert draws.draws.shape == (2000, 8, 25)
    assert time.perf_counter() - start < 30.0
