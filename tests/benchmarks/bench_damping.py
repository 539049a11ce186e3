"""What a further damping value costs, in eigendecompositions; run it as a script.

One damping is: rescale the eigen-coordinates, predict the effect of every mask on every query.
The eigendecomposition is that of the Hessian of digits, P = 6,570, 1,000 masks, 180 queries.
"""

from __future__ import annotations

import time

import numpy as np

from decomposition.curvature import DenseCurvature
from decomposition.curvature.assembly import assemble_hessian
from decomposition.problems import digits
from decomposition.scores.gradients import loss_gradients
from decomposition.scores.scorer import scorer


def main() -> None:
    problem = digits().trained()
    curvature = DenseCurvature(assemble_hessian(problem))
    start = time.perf_counter()
    curvature.decomposition()
    decomposition = time.perf_counter() - start
    rung = scorer(curvature, loss_gradients(problem))
    masks = np.random.default_rng(0).random((1000, problem.num_examples)) < 0.5
    rung.predicted_effects(masks, 1e-3)  # the masked sums are shared by all dampings
    times = []
    for damping in np.geomspace(1e-6, 1e-1, 10):
        start = time.perf_counter()
        rung.predicted_effects(masks, float(damping))
        times.append(time.perf_counter() - start)
    share = min(times) / decomposition
    print(
        f"eigendecomposition {decomposition:.1f} s, one more damping {1e3 * min(times):.0f} ms: "
        f"{100 * share:.2f}% of it"
    )


if __name__ == "__main__":
    main()
