"""Agreement of scores with a reference."""

import numpy as np
import pytest
from scipy import stats

from decomposition.scores.agreement import agreement, top_examples
from decomposition.scores.lds import ScoreError


def scores(seed: int):
    return np.random.default_rng((17, seed)).normal(size=(5, 40))


def test_a_rung_agrees_with_itself() -> None:
    found = agreement(scores(0), scores(0))
    assert (found.spearman, found.top_jaccard) == (pytest.approx(1.0), 1.0)


def test_equals_sets_and_scipy_by_hand() -> None:
    one, other = scores(0), scores(0) + scores(1)
    found = agreement(one, other, top=7)
    rho, jaccard = [], []
    for a, b in zip(one, other, strict=True):
        rho.append(stats.spearmanr(a, b)[0])
        mine, theirs = set(np.argsort(-a)[:7]), set(np.argsort(-b)[:7])
        jaccard.append(len(mine & theirs) / len(mine | theirs))
    assert found.spearman == pytest.approx(np.mean(rho))
    assert found.top_jaccard == pytest.approx(np.mean(jaccard))


def test_top_examples_are_the_largest_first() -> None:
    np.testing.assert_array_equal(top_examples(np.array([[1.0, 5.0, 3.0, 5.0]]), 3), [[1, 3, 2]])


@pytest.mark.parametrize("top", [0, 41])
def test_top_must_fit(top: int) -> None:
    with pytest.raises(ScoreError, match=f"1 … 40 examples, got {top}"):
        agreement(scores(0), scores(1), top=top)


def test_shapes_must_agree() -> None:
    with pytest.raises(ScoreError, match="one shape"):
        agreement(scores(0), scores(1)[:3])
