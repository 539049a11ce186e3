"""One more damping, and the bootstrap: `python -m tests.benchmarks.bench_scores`.

A damping is: rescale the eigen-coordinates of H, predict the effect of 1,000 masks on 180 queries
(digits, P = 6,570); it is held against the eigendecomposition that all dampings share. The
bootstrap: 2,000 resamples of 8 rungs × 25 dampings × 180 queries × 1,000 masks, on simulated
predictions, the linearisation and what the resamples take after it.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from decomposition.curvature import DenseCurvature
from decomposition.curvature.assembly import assemble_hessian
from decomposition.problems import digits
from decomposition.scores.bootstrap import Resamples, bootstrap, resample
from decomposition.scores.gradients import loss_gradients
from decomposition.scores.lds import LinearisedLDS, linearise
from decomposition.scores.scorers import scorer
from tests.benchmarks.measuring import Kept, Row, in_turn, thread_counts, threads

RUNGS, DAMPINGS, MASKS, QUERIES, RESAMPLES = 8, 25, 1000, 180, 2000


def one_more_damping(kept: Kept) -> None:
    problem = digits().trained()
    matrix = assemble_hessian(problem)
    curvature = DenseCurvature(matrix)
    spent = in_turn({"eigh": curvature.decomposition}, 1)["eigh"]
    gradients = loss_gradients(problem)
    masks = np.random.default_rng(0).random((MASKS, problem.num_examples)) < 0.5
    for count in thread_counts():
        with threads(count):
            rung = scorer(curvature, gradients)
            rung.predicted_effects(masks, 1e-3)  # the masked sums are shared by all dampings
            best = in_turn({"": partial(rung.predicted_effects, masks, 1e-5)}, 5)[""]
        kept.add(Row("one more damping", "digits", count, best, spent))


def resampling(kept: Kept) -> None:
    generator = np.random.default_rng(0)
    truth = generator.standard_normal((MASKS, QUERIES))
    noise = generator.standard_normal((DAMPINGS, MASKS, QUERIES))
    prediction = (truth + noise).astype(np.float32)
    weights = resample(MASKS, QUERIES, count=RESAMPLES)
    for count in thread_counts():
        with threads(count):
            linear = linearise(prediction, truth)

            ways = {
                "linearise": partial(linearise, prediction, truth),
                "resample": partial(resampled, linear, weights),
            }
            best = {name: RUNGS * value for name, value in in_turn(ways, 5).items()}
        more: dict[str, float | str] = {"of which resampling, s": best["resample"]}
        total = sum(best.values())
        kept.add(Row("2,000 bootstrap resamples", "200 cells", count, total, more=more))


def resampled(linear: LinearisedLDS, weights: Resamples) -> object:
    return bootstrap(linear, weights).interval()


def main() -> None:
    torch.manual_seed(0)
    kept = Kept("scores")
    resampling(kept)
    one_more_damping(kept)


if __name__ == "__main__":
    main()
