"""K-FAC and EK-FAC of this package, built alone: exact, and from one sampled label an example."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from adapters.method import Method, Scorer, mean_loss
from decomposition import EKFAC, KFAC, Curvature, Problem, influence_scores
from decomposition.chain.rungs import sampled_ekfac, sampled_kfac

RUNGS: dict[tuple[str, str], Callable[[int], Callable[[Problem], Curvature]]] = {
    ("exact", "kfac"): lambda seed: KFAC(),
    ("exact", "ekfac"): lambda seed: EKFAC(),
    ("one sample", "kfac"): lambda seed: sampled_kfac(1, seed),
    ("one sample", "ekfac"): lambda seed: sampled_ekfac(1, seed),
}
"""(what, rung) → seed → function from the problem."""


def scorer(problem: Problem, seed: int, what: tuple[str, str]) -> Scorer:
    """Scores from the rung."""
    curvature = RUNGS[what](seed)(problem)
    return lambda damping: influence_scores(problem, curvature, damping or 0.0)


def methods() -> list[Method]:
    """The exact rungs and the sampled ones."""
    return [
        Method(
            what[0],
            what[1],
            partial(scorer, what=what),
            (),
            mean_loss,
            samples=what[0] != "exact",
            ours=what[1],
        )
        for what in RUNGS
    ]
