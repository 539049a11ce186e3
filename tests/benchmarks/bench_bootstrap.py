"""Time of the bootstrap of the default study's size; run it as a script.

2,000 resamples of 8 rungs × 25 dampings × 180 queries × 1,000 masks, on simulated predictions:
the linearisation once, and what a further 2,000 resamples cost after it.
"""

from __future__ import annotations

import time

import numpy as np

from decomposition.scores.bootstrap import bootstrap, resample
from decomposition.scores.lds import linearise

RUNGS, DAMPINGS, MASKS, QUERIES, RESAMPLES = 8, 25, 1000, 180, 2000


def main() -> None:
    generator = np.random.default_rng(0)
    truth = generator.standard_normal((MASKS, QUERIES))
    linearising = resampling = 0.0
    weights = resample(MASKS, QUERIES, count=RESAMPLES)
    for _ in range(RUNGS):
        noise = generator.standard_normal((DAMPINGS, MASKS, QUERIES))
        prediction = (truth + noise).astype(np.float32)
        start = time.perf_counter()
        linear = linearise(prediction, truth)
        middle = time.perf_counter()
        bootstrap(linear, weights).interval()
        linearising += middle - start
        resampling += time.perf_counter() - middle
    print(
        f"{RESAMPLES} resamples of {RUNGS} × {DAMPINGS} cells: {linearising + resampling:.1f} s, "
        f"of which resampling {resampling:.2f} s"
    )


if __name__ == "__main__":
    main()
