"""Group /policies: what each treatment of negative eigenvalues makes of a rung.

Only rungs with negative eigenvalues are listed. Every policy is given its own best damping
(cross-fitted like protocol ``tuned``, on the grid of ``equal``); ``signed`` below |μ_min| inverts
an indefinite matrix, and a level that is read there is flagged.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.damping import POLICIES
from decomposition.errors import DampingError
from decomposition.names import CI_BOUNDS
from decomposition.scores.bootstrap import Resamples, bootstrap
from decomposition.scores.crossfit import at_choice, choose, fold_lds
from decomposition.scores.effects import Effects, solved
from decomposition.scores.lds import linearise, mean_defined
from decomposition.scores.scorer import Scorer

ROUNDING = 1e-10
"""Eigenvalues above −ROUNDING · μ_max are rounding errors of a semi-definite rung."""


def policies_group(
    effects: Effects,
    dampings: Float[np.ndarray, " D"],
    folds: Int[np.ndarray, " M"],
    weights: Resamples,
    level: float,
) -> xr.Dataset | None:
    """Level, damping and definiteness of every indefinite rung under every policy; None if none."""
    rungs = [name for name, rung in effects.scorers.items() if _indefinite(rung)]
    if not rungs:
        return None
    shape = (len(POLICIES), len(rungs))
    levels, chosen = np.full((*shape, 3), np.nan), np.full(shape, np.nan)
    indefinite, curve = np.zeros(shape, np.int64), np.full((*shape, len(dampings)), np.nan)
    for j, name in enumerate(rungs):
        rung = effects.scorers[name]
        for i, (policy, rule) in enumerate(POLICIES.items()):
            usable = np.array([d for d in dampings.tolist() if _invertible(rung, d, policy)])
            predicted = _predicted(effects, name, usable.tolist(), policy)
            usable, predicted = usable[solved(predicted)], predicted[solved(predicted)]
            if len(usable) < 2:
                continue
            by_fold = fold_lds(predicted[None], effects.truth, folds)
            choice = choose(by_fold)
            curve[i, j, np.isin(dampings, usable)] = mean_defined(by_fold[:, 0].T)
            one = linearise(at_choice(predicted[None], choice, folds), effects.truth, folds)
            levels[i, j] = bootstrap(one, weights).interval(level)[0]
            picked = usable[choice.index[:, 0]]
            chosen[i, j] = float(np.exp(np.log(picked).mean()))
            assert rung.mu is not None
            indefinite[i, j] = int(any(rule.indefinite(rung.mu, d) for d in picked))
    return xr.Dataset(
        {
            "level": (("policy", "rung", "ci_bound"), levels),
            "level_damping": (("policy", "rung"), chosen),
            "indefinite": (("policy", "rung"), indefinite),
            "lds_by_damping": (("policy", "rung", "damping"), curve),
        },
        {
            "policy": list(POLICIES),
            "rung": rungs,
            "damping": dampings,
            "ci_bound": list(CI_BOUNDS),
        },
    )


def _predicted(
    effects: Effects, rung: str, dampings: list[float], policy: str
) -> Float[np.ndarray, "D M Q"]:
    if len(dampings) < 2:
        return np.empty((len(dampings), *effects.truth.shape), np.float32)
    effects.prepare(rung, dampings, negative=policy)
    return effects.at(rung, dampings, policy)


def _indefinite(rung: Scorer) -> bool:
    """As far as its eigenvalues are known; not under a policy of its own."""
    if rung.mu is None or (rung.spectrum is not None and rung.spectrum.negative is not None):
        return False
    return float(rung.mu.min()) < -ROUNDING * float(rung.mu.max())


def _invertible(rung: Scorer, damping: float, policy: str) -> bool:
    try:
        rung.check(damping, policy)
    except DampingError:
        return False
    return True
