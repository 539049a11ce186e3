"""Where a step's loss lives: parts that sum to the whole."""

import numpy as np
import pytest

from decomposition.scores.bootstrap import bootstrap, resample
from decomposition.scores.lds import linearise, mean_truth
from decomposition.shares.localisation import path_decomposition, query_drops
from decomposition.shares.steps import ShareError
from tests.scores.simulated import Population
from tests.shares.planted import random_levels


def test_a_path_sums_to_its_total() -> None:
    levels = random_levels(4)
    found = path_decomposition(levels, ("l1", "l2", "l3"))
    assert found.contribution[:, 1].sum() == pytest.approx(found.total[1])
    np.testing.assert_allclose(found.remainder, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.contribution[:, 1], -np.diff(levels.estimate))


def test_names_must_fit_the_path() -> None:
    with pytest.raises(ShareError, match="3 swaps need 4 levels"):
        path_decomposition(random_levels(3), ("a", "b", "c"))


def study(masks: int = 200, queries: int = 30):
    prediction, truth = Population().study(masks, queries, 1, (37,))
    return prediction, mean_truth(truth)


def test_query_drops_average_to_the_step_drop() -> None:
    prediction, truth = study()
    weights = resample(200, 30)
    found = query_drops(prediction[1], prediction[2], truth, weights)
    levels = bootstrap(linearise(prediction, truth), weights).estimate
    assert found.drop[:, 1].mean() == pytest.approx(levels[1] - levels[2])


def test_the_query_that_changes_most_comes_first() -> None:
    prediction, truth = study()
    after = prediction[0].copy()
    after[:, 7] = -after[:, 7]
    found = query_drops(prediction[0], after, truth, resample(200, 30), most=3)
    assert found.most_changed[0] == 7
    assert found.degraded == pytest.approx(1 / 30)
    assert found.improved == 0.0


def test_an_undefined_query_is_last() -> None:
    prediction, truth = study()
    after = prediction[1].copy()
    after[:, 3] = 0.0
    found = query_drops(prediction[0], after, truth, resample(200, 30), most=30)
    assert found.most_changed[-1] == 3
    assert np.isnan(found.drop[3]).all()
