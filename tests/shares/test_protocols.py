"""All protocols from one bootstrap."""

import numpy as np
import pytest

from decomposition.attribution.bootstrap import bootstrap, resample
from decomposition.attribution.lds import ScoreError
from decomposition.attribution.linearised import linearise
from decomposition.shares.crossfit import at_choice, choose, fold_lds, mask_folds
from decomposition.shares.mismatch import damping_mismatch
from decomposition.shares.protocols import protocol_levels
from tests.shares.test_crossfit import curves

WEIGHTS = resample(120, 15, count=200)


def test_equals_the_steps_by_hand() -> None:
    prediction, truth = curves()
    folds = mask_folds(120)
    found = protocol_levels({"equal": prediction, "tuned": prediction}, truth, folds, WEIGHTS)
    choice = choose(fold_lds(prediction, truth, folds))
    alone = bootstrap(linearise(at_choice(prediction, choice, folds), truth, folds), WEIGHTS)
    np.testing.assert_allclose(found.levels("tuned").estimate, alone.estimate)
    np.testing.assert_array_equal(found.choices["tuned"].index, choice.index)
    assert found.draws.estimate.shape == (2, 2)


def test_the_reference_loses_nothing_by_a_common_damping() -> None:
    prediction, truth = curves()
    found = protocol_levels(
        {"equal": prediction, "tuned": prediction}, truth, mask_folds(120), WEIGHTS
    )
    gap = damping_mismatch(found.levels("equal"), found.levels("tuned")).gap
    np.testing.assert_allclose(gap[0], 0.0, atol=1e-10)
    assert gap[1, 0] > 0.0


def test_parts_belong_to_their_protocol() -> None:
    prediction, truth = curves()
    found = protocol_levels(
        {"equal": prediction, "tuned": prediction}, truth, mask_folds(120), WEIGHTS
    )
    for protocol in found.protocols:
        parts = found.parts(protocol)
        expected = np.diag(parts.masks + parts.queries)
        np.testing.assert_allclose(found.levels(protocol).variance(), expected, rtol=0.5)


def test_base_models_are_carried() -> None:
    studies = [curves(best) for best in ((2, 4), (3, 3), (2, 5))]
    found = protocol_levels(
        [{"tuned": prediction} for prediction, _ in studies],
        [truth for _, truth in studies],
        mask_folds(120),
        resample(120, 15, studies=3, count=100),
    )
    assert found.linear.per_study.shape == (3, 2)
    assert found.parts("tuned").studies[0, 0] > 0.0


def test_no_protocol_is_an_error() -> None:
    with pytest.raises(ScoreError, match="no damping protocol"):
        protocol_levels({}, np.zeros((4, 2)), np.arange(4) % 2, WEIGHTS)
