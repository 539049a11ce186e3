"""Nominal 90% intervals cover the population's levels, drops, total and shares."""

from dataclasses import replace

import numpy as np
import pytest

from decomposition.scores.bootstrap import bootstrap, resample
from decomposition.scores.crossfit import at_choice, choose, fold_lds, mask_folds
from decomposition.scores.lds import linearise, mean_truth
from decomposition.scores.levels import joint_levels
from decomposition.shares.steps import step_shares
from tests.scores.simulated import Population
from tests.shares.planted import NODES

STEPS = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])


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


def moved(population: Population, random: np.random.Generator) -> Population:
    """The population of another base model: fidelities that differ from node to node."""
    shift = 0.04 * random.normal(size=len(population.fidelity))
    return replace(population, fidelity=tuple(np.array(population.fidelity) + shift))


@pytest.mark.slow
@pytest.mark.parametrize("base_models", [3, 6])
def test_coverage_over_base_models(base_models: int) -> None:
    population = Population(spread=0.02, own_spread=0.01)
    around = replace(population, spread=float(np.hypot(0.02, 0.04)))
    target = around.levels(1)
    hits = []
    for study in range(200):
        random = np.random.default_rng((79, study))
        studies = [
            moved(population, random).study(150, 40, 1, (83, study, base))
            for base in range(base_models)
        ]
        linear = linearise([p for p, _ in studies], [mean_truth(t) for _, t in studies])
        weights = resample(150, 40, base_models, count=1000, seed=(89, study))
        interval = bootstrap(linear, weights).interval(0.9)
        hits.append((interval[:, 0] <= target) & (target <= interval[:, 2]))
    assert 0.85 <= np.mean(hits) <= 0.95, np.mean(hits, 0)


@pytest.mark.slow
def test_coverage_of_cross_fitted_levels_and_drops() -> None:
    # Noise grows away from each node's best setting, whose place differs between nodes.
    quality = np.array([[0.55, 0.7, 0.68, 0.5], [0.4, 0.5, 0.6, 0.58], [0.3, 0.45, 0.5, 0.52]])
    flat = Population(fidelity=tuple(quality.ravel()), spread=0.05, own_spread=0.02)
    truly = flat.levels(1).reshape(quality.shape)
    hits = []
    for study in range(200):
        prediction, measured = flat.study(200, 40, 1, (97, study))
        grid = prediction.reshape(*quality.shape, 200, 40)
        folds = mask_folds(200, seed=(study,))
        weights = resample(200, 40, count=1000, seed=(101, study))
        truth = mean_truth(measured)
        by_fold = fold_lds(grid, truth, folds)
        choices = {"equal": choose(by_fold, 0), "tuned": choose(by_fold)}
        chosen = np.stack([at_choice(grid, choice, folds) for choice in choices.values()])
        found = joint_levels([chosen], [truth], folds, weights, tuple(choices), ("0", "1", "2"))
        for protocol, choice in choices.items():
            target = np.stack([truly[np.arange(3), fold] for fold in choice.index]).mean(0)
            levels = found.of(protocol)
            for draws, value in ((levels, target), (levels.combine(STEPS), STEPS @ target)):
                interval = draws.interval(0.9)
                hits.append(np.mean((interval[:, 0] <= value) & (value <= interval[:, 2])))
    assert 0.85 <= np.mean(hits) <= 0.95
