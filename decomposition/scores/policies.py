"""Group /attribution/policies: what each treatment of negative eigenvalues makes of a rung.

Only rungs with negative eigenvalues are listed. Every policy is given its own best damping
(cross-fitted like protocol ``tuned``, on the grid of ``equal``); ``signed`` below |μ_min| inverts
an indefinite matrix, and a level that is read there is flagged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.damping import POLICIES
from decomposition.errors import DampingError
from decomposition.results.schema import CI_BOUNDS
from decomposition.scores.bootstrap import Resamples, bootstrap
from decomposition.scores.crossfit import at_choice, choose, fold_lds
from decomposition.scores.lds import mean_defined
from decomposition.scores.linearised import linearise
from decomposition.scores.scorer import Scorer, effects_over
from decomposition.scores.selection import Measured

ROUNDING = 1e-10
"""Eigenvalues above −ROUNDING · μ_max are rounding errors of a semi-definite rung."""


def policies_group(
    scorers: Mapping[str, Scorer],
    measured: Measured,
    dampings: Float[np.ndarray, " D"],
    folds: Int[np.ndarray, " M"],
    weights: Resamples,
    level: float,
) -> xr.Dataset | None:
    """Level, damping and definiteness of every indefinite rung under every policy; None if none."""
    rungs = [name for name, rung in scorers.items() if _indefinite(rung)]
    if not rungs:
        return None
    shape = (len(POLICIES), len(rungs))
    levels, chosen = np.full((*shape, 3), np.nan), np.full(shape, np.nan)
    indefinite, curve = np.zeros(shape, np.int64), np.full((*shape, len(dampings)), np.nan)
    for j, name in enumerate(rungs):
        rung = scorers[name]
        for i, (policy, rule) in enumerate(POLICIES.items()):
            usable = [d for d in dampings.tolist() if _invertible(rung, d, policy)]
            if len(usable) < 2:
                continue
            effects = effects_over(rung, measured.masks, usable, policy)
            by_fold = fold_lds(effects[None], measured.mean, folds)
            choice = choose(by_fold)
            curve[i, j, np.isin(dampings, usable)] = mean_defined(by_fold[:, 0].T)
            one = linearise(at_choice(effects[None], choice, folds), measured.mean, folds)
            levels[i, j] = bootstrap(one, weights).interval(level)[0]
            picked = np.array(usable)[choice.index[:, 0]]
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


def _indefinite(rung: Scorer) -> bool:
    if rung.mu is None or (rung.spectrum is not None and rung.spectrum.negative is not None):
        return False  # unknown, or under a policy of its own
    return float(rung.mu.min()) < -ROUNDING * float(rung.mu.max())


def _invertible(rung: Scorer, damping: float, policy: str) -> bool:
    try:
        rung.check(damping, policy)
    except DampingError:
        return False
    return True
