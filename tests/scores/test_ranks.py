"""Midranks, Spearman's ρ and its influence function."""

import numpy as np
import pytest
from scipy import stats

from decomposition.scores.ranks import correlation, influence, rank
from tests.scores.simulated import Floats, weighted_spearman


def pairs(tied: bool) -> tuple[Floats, Floats]:
    random = np.random.default_rng((3, tied))
    x = random.normal(size=(4, 50))
    y = x + random.normal(size=(4, 50))
    return (np.round(2 * x), np.round(2 * y)) if tied else (x, y)


@pytest.mark.parametrize("tied", [False, True])
def test_correlation_is_scipys_spearman(tied: bool) -> None:
    x, y = pairs(tied)
    expected = [stats.spearmanr(a, b)[0] for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(correlation(rank(x), rank(y)), expected, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_influence_is_the_derivative_of_the_reranked_correlation(tied: bool) -> None:
    x, y = pairs(tied)
    count, step = x.shape[1], 1e-5
    towards = np.eye(count) * count - 1.0
    psi = influence(rank(x), rank(y))
    for a, b, row in zip(x, y, psi, strict=True):
        up = weighted_spearman(a, b, 1.0 + step * towards)
        down = weighted_spearman(a, b, 1.0 - step * towards)
        np.testing.assert_allclose(row, (up - down) / (2 * step), atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_influence_has_mean_zero(tied: bool) -> None:
    x, y = pairs(tied)
    np.testing.assert_allclose(influence(rank(x), rank(y)).mean(-1), 0.0, atol=1e-13)


def test_one_ranking_serves_many() -> None:
    x, y = pairs(tied=False)
    shared = influence(rank(x), rank(y[0]))
    single = [influence(rank(one), rank(y[0])) for one in x]
    np.testing.assert_allclose(shared, single, atol=1e-13)


def test_influence_of_a_constant_is_zero() -> None:
    x, _ = pairs(tied=False)
    psi = influence(rank(np.ones_like(x)), rank(x))
    assert not psi.any()
