"""Studies whose steps are known by construction."""

import numpy as np

from decomposition.scores.bootstrap import (
    Draws,
    VarianceParts,
    bootstrap,
    resample,
    variance_parts,
)
from decomposition.scores.lds import linearise, mean_truth
from tests.scores.simulated import Population

NODES = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")


def planted_levels(
    fidelity: tuple[float, ...], masks: int = 400, queries: int = 40, seed: int = 0
) -> tuple[Draws, VarianceParts]:
    """Bootstrapped levels (nodes,) of a simulated study with these fidelities."""
    prediction, truth = Population(fidelity).study(masks, queries, 1, (29, seed))
    linear = linearise(prediction, mean_truth(truth))
    return bootstrap(linear, resample(masks, queries, seed=(seed,))), variance_parts(linear)


def random_levels(count: int, seed: int = 0, resamples: int = 300) -> Draws:
    """Levels (count,) with arbitrary draws."""
    random = np.random.default_rng((31, seed))
    estimate = random.normal(size=count)
    return Draws(estimate, estimate + 0.1 * random.normal(size=(resamples, count)))
