"""All protocols and base models from one bootstrap."""

import numpy as np
import pytest

from decomposition.scores.bootstrap import bootstrap, resample
from decomposition.scores.crossfit import at_choice, choose, fold_lds, mask_folds
from decomposition.scores.lds import ScoreError, linearise
from decomposition.scores.levels import Levels, joint_levels
from decomposition.shares.mismatch import damping_mismatch
from tests.scores.test_crossfit import curves

WEIGHTS = resample(120, 15, count=200)
PROTOCOLS = ("equal", "tuned")


def chosen(prediction: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Predictions (protocols, nodes, M, Q) under ``equal`` (node 0's optimum) and ``tuned``."""
    levels = fold_lds(prediction, truth, folds)
    return np.stack(
        [at_choice(prediction, choose(levels, reference), folds) for reference in (0, None)]
    )


def levels() -> Levels:
    prediction, truth = curves()
    folds = mask_folds(120)
    nodes = [str(i) for i in range(len(prediction))]
    return joint_levels(
        [chosen(prediction, truth, folds)], [truth], folds, WEIGHTS, PROTOCOLS, nodes
    )


def test_equals_the_steps_by_hand() -> None:
    prediction, truth = curves()
    folds = mask_folds(120)
    choice = choose(fold_lds(prediction, truth, folds))
    alone = bootstrap(linearise(at_choice(prediction, choice, folds), truth, folds), WEIGHTS)
    np.testing.assert_allclose(levels().of("tuned").estimate, alone.estimate)


def test_the_reference_loses_nothing_by_a_common_damping() -> None:
    gap = damping_mismatch(levels().of("equal"), levels().of("tuned")).gap
    np.testing.assert_allclose(gap[0], 0.0, atol=1e-10)
    assert gap[1, 0] > 0.0


def test_parts_belong_to_their_protocol() -> None:
    for protocol in PROTOCOLS:
        parts = levels().parts(protocol)
        expected = np.diag(parts.masks + parts.queries)
        np.testing.assert_allclose(levels().of(protocol).variance(), expected, rtol=0.5)


def test_nodes_are_found_by_name() -> None:
    found = levels()
    np.testing.assert_array_equal(
        found.of("tuned", ["1", "0"]).estimate, found.of("tuned").estimate[[1, 0]]
    )


def test_base_models_are_carried() -> None:
    studies = [curves(best) for best in ((2, 4), (3, 3), (2, 5))]
    folds = mask_folds(120)
    found = joint_levels(
        [chosen(prediction, truth, folds) for prediction, truth in studies],
        [truth for _, truth in studies],
        folds,
        resample(120, 15, studies=3, count=100),
        PROTOCOLS,
        ["0", "1"],
    )
    assert found.per_base.shape == (3, 2, 2)
    assert found.parts("tuned").studies[0, 0] > 0.0


def test_no_base_model_is_an_error() -> None:
    with pytest.raises(ScoreError, match="at least one base model"):
        joint_levels([], [], np.arange(4) % 2, WEIGHTS, PROTOCOLS, ["0"])
