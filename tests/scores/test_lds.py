"""The linear data-modelling score against scipy, its sign and its invariances."""

import numpy as np
import pytest
from scipy import stats

from decomposition.scores.lds import (
    ScoreError,
    lds,
    mean_truth,
    predicted_effects,
)


def study(seed: int = 0):
    random = np.random.default_rng((7, seed))
    masks = random.random((40, 15)) < 0.5
    scores = random.normal(size=(6, 15))
    truth = predicted_effects(masks, scores) + random.normal(size=(40, 6))
    return masks, scores, truth


def test_lds_is_spearmanr_by_hand() -> None:
    masks, scores, truth = study()
    found = lds(predicted_effects(masks, scores), truth)
    by_hand = []
    for query in range(6):
        prediction = [-sum(scores[query, i] for i in range(15) if row[i]) for row in masks]
        by_hand.append(stats.spearmanr(prediction, truth[:, query])[0])
    np.testing.assert_allclose(found.per_query, by_hand, atol=1e-12)
    assert found.mean == pytest.approx(np.mean(by_hand), abs=1e-12)


def test_scores_of_a_loss_that_kept_examples_lower_have_positive_lds() -> None:
    # Removing i raises the loss on q by τ[q, i] > 0, so keeping it lowers the loss.
    masks, _, _ = study()
    scores = np.abs(np.random.default_rng((7, 1)).normal(size=(6, 15)))
    loss = 5.0 - np.einsum("mn,qn->mq", masks.astype(float), scores)
    assert lds(predicted_effects(masks, scores), loss).mean == pytest.approx(1.0)
    assert lds(predicted_effects(masks, -scores), loss).mean == pytest.approx(-1.0)


def test_a_constant_prediction_is_undefined_and_counted() -> None:
    masks, scores, truth = study()
    scores[2] = 0.0
    found = lds(predicted_effects(masks, scores), truth)
    assert np.isnan(found.per_query[2])
    assert found.undefined == 1
    assert found.mean == pytest.approx(np.nanmean(found.per_query))


def test_a_constant_truth_everywhere_gives_no_mean() -> None:
    masks, scores, truth = study()
    found = lds(predicted_effects(masks, scores), np.ones_like(truth))
    assert np.isnan(found.mean)
    assert found.undefined == 6


def test_the_order_of_masks_is_irrelevant() -> None:
    masks, scores, truth = study()
    order = np.random.default_rng(0).permutation(len(masks))
    one = lds(predicted_effects(masks, scores), truth).per_query
    other = lds(predicted_effects(masks[order], scores), truth[order]).per_query
    np.testing.assert_allclose(one, other, atol=1e-13)


def test_monotone_transforms_of_predictions_are_irrelevant() -> None:
    masks, scores, truth = study()
    prediction = predicted_effects(masks, scores)
    np.testing.assert_allclose(
        lds(np.exp(prediction / 10.0), truth).per_query,
        lds(prediction, truth).per_query,
        atol=1e-13,
    )


def test_leading_axes_are_cells() -> None:
    masks, scores, truth = study()
    prediction = predicted_effects(masks, scores)
    cells = np.stack([[prediction, -prediction, prediction**3]])
    found = lds(cells, truth)
    assert found.per_query.shape == (1, 3, 6)
    np.testing.assert_allclose(found.mean[0, 1], -found.mean[0, 0])


def test_truth_is_the_mean_over_repeats() -> None:
    truth = np.random.default_rng(2).normal(size=(5, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(mean_truth(truth), truth.astype(float).mean(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t: (p[:-1], t), "must end in"),
        (lambda p, t: (p[:1], t[:1]), "at least 2 masks, got 1"),
        (lambda p, t: (np.where(p == p[3, 2], np.nan, p), t), "mask 3, query 2 is nan"),
        (lambda p, t: (p, np.where(t == t[1, 4], np.inf, t)), "mask 1, query 4 is inf"),
    ],
)
def test_bad_arrays_are_named(change, message: str) -> None:
    masks, scores, truth = study()
    with pytest.raises(ScoreError, match=message):
        lds(*change(predicted_effects(masks, scores), truth))


def test_masks_and_scores_must_share_the_examples() -> None:
    masks, scores, _ = study()
    with pytest.raises(ScoreError, match="agree on N"):
        predicted_effects(masks[:, :-1], scores)


def test_no_masks_is_an_error() -> None:
    with pytest.raises(ScoreError, match="all at least 1"):
        mean_truth(np.empty((0, 1, 3)))
