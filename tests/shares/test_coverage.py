"""Nominal 90% intervals cover the population's levels, drops, total and shares."""

import numpy as np
import pytest

from decomposition.attribution.bootstrap import bootstrap, resample
from decomposition.attribution.lds import mean_truth
from decomposition.attribution.linearised import linearise
from decomposition.shares.steps import step_shares
from tests.attribution.simulated import Population
from tests.shares.planted import NODES


def coverage(
    population: Population, masks: int, queries: int, repeats: int, studies: int, resamples: int
) -> dict[str, float]:
    """Fraction of intervals that contain the population's value, by kind of quantity."""
    levels = population.levels(repeats)
    drop = -np.diff(levels)
    total = levels[0] - levels[-1]
    hits: dict[str, list[float]] = {"level": [], "drop": [], "total": [], "share": []}
    for study in range(studies):
        prediction, truth = population.study(masks, queries, repeats, (71, study))
        weights = resample(masks, queries, count=resamples, seed=(73, study))
        draws = bootstrap(linearise(prediction, mean_truth(truth)), weights)
        shares = step_shares(draws, NODES, level=0.9)
        for name, interval, value in (
            ("level", draws.interval(0.9), levels),
            ("drop", shares.drop, drop),
            ("total", shares.total, total),
            ("share", shares.share, drop / total),
        ):
            inside = (interval[..., 0] <= value) & (value <= interval[..., 2])
            hits[name].append(float(inside.mean()))
    return {name: float(np.mean(found)) for name, found in hits.items()}


def test_quick_look_at_coverage() -> None:
    found = coverage(Population(), masks=100, queries=25, repeats=1, studies=60, resamples=300)
    for name in ("level", "drop", "share"):
        assert 0.8 < found[name] < 0.98, found


HETEROGENEOUS = Population(spread=0.1, own_spread=0.05)
HOMOGENEOUS = Population(spread=0.02, own_spread=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize("population", [HETEROGENEOUS, HOMOGENEOUS], ids=["varied", "alike"])
def test_coverage_over_two_hundred_studies(population: Population, repeats: int) -> None:
    found = coverage(population, 150, 40, repeats, studies=200, resamples=1000)
    for name, fraction in found.items():
        assert 0.85 <= fraction <= 0.95, f"{name}: {found}"
