"""What each step adds to the error of the matrix: drops and shares in every metric but the LDS.

    frobenius_squared       ‖C − D‖² of the step itself, the cross term apart
    damped_inverse_squared  the squared error of the damped inverse against H's, up to its scale
    inverse_residual_*      the mean residual of the inverse, Eq. 9 (see spectrum.residuals)
    block_*_overlap         what is lost of an overlap with the block GGN, Eq. 16 and 17

A drop is the error after the step minus the error before, of an overlap the overlap before minus
the overlap after: positive is a degradation. Overlaps are taken from the block GGN, so that they
have the steps that lead away from it, and the total of those. An interval is over random probes, or
over the gradients that were drawn, the same for all rungs; what is exact has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.names import CHAIN, CI_BOUNDS, CROSS_TERM, STEPS
from decomposition.scores.bootstrap import Draws
from decomposition.settings import Settings
from decomposition.shares.steps import StepShares, exact_shares, step_shares
from decomposition.spectrum.overlaps import BLOCK_OVERLAPS
from decomposition.spectrum.overlaps import REFERENCE as BLOCKS
from decomposition.spectrum.residuals import RESIDUALS

ERROR_METRICS = ("frobenius_squared", "damped_inverse_squared", *RESIDUALS, *BLOCK_OVERLAPS)


def error_shares(
    errors: xr.Dataset, residuals: xr.Dataset | None, protocol: str, settings: Settings
) -> Iterator[tuple[str, StepShares]]:
    """Metric, with drops and shares of its steps, of every metric that is known.

    Args:
        errors: ``/spectral_error`` of one cell.
        residuals: ``/residuals`` of that cell, if there are any.
        protocol: a protocol or rule that says each rung's damping.
        settings: coverage and resamples of the intervals.
    """
    steps = (*STEPS, CROSS_TERM)
    samples = errors["squared_error"].sel(step=list(steps)).values
    yield "frobenius_squared", frobenius_shares(samples, steps, settings)
    misaligned = errors.get("misaligned")
    if misaligned is not None and protocol in misaligned["protocol"]:
        values = misaligned.sel(protocol=protocol).sel(rung=list(CHAIN)).values
        yield "damped_inverse_squared", exact_shares(np.diff(values), STEPS)
    if residuals is not None and protocol in residuals["protocol"]:
        under = residuals["under"].sel(protocol=protocol)
        yield from _residual_shares(under, residuals, settings)
    start = CHAIN.index(BLOCKS)
    for metric in BLOCK_OVERLAPS:
        if metric in errors["metric"]:
            values = errors["value"].sel(metric=metric, rung=list(CHAIN[start:])).values
            yield metric, exact_shares(-np.diff(values), STEPS[start:])


def errors_at_damping(residuals: xr.Dataset, settings: Settings) -> xr.Dataset:
    """``/shares/errors``: the same of the residuals, at one λ for all rungs."""
    grid, given = settings.multipliers(), residuals["multiplier"].values
    near = {m: np.isclose(given, m, rtol=1e-9, atol=0.0) for m in grid.tolist()}
    places = {int(at.argmax()): m for m, at in near.items() if at.any()}  # twice up to rounding
    shape, steps = (len(RESIDUALS), len(places)), len(STEPS)
    drop, share = np.full((2, *shape, steps, 3), np.nan)
    total, defined = np.full((*shape, 3), np.nan), np.zeros(shape, np.int64)
    for j, place in enumerate(places):
        at = residuals["at_damping"].isel(damping=place)
        for i, (_, found) in enumerate(_residual_shares(at, residuals, settings)):
            drop[i, j], share[i, j] = found.drop, found.share
            total[i, j], defined[i, j] = found.total, int(found.defined)
    table = ("metric", "multiplier", "step", "ci_bound")
    return xr.Dataset(
        {
            "drop": (table, drop),
            "share": (table, share),
            "total": (("metric", "multiplier", "ci_bound"), total),
            "defined": (("metric", "multiplier"), defined),
            "damping_value": ("multiplier", residuals["damping"].values[list(places)]),
        },
        {
            "metric": list(RESIDUALS),
            "multiplier": list(places.values()),
            "step": list(STEPS),
            "ci_bound": list(CI_BOUNDS),
        },
    )


def _residual_shares(
    values: xr.DataArray, residuals: xr.Dataset, settings: Settings
) -> Iterator[tuple[str, StepShares]]:
    """Of every residual, from its values (metric, rung, vector) at one damping of each rung."""
    for metric in RESIDUALS:
        found = residual_levels(values, residuals, metric, settings.resamples, settings.seed)
        if len(found.draws) < 2:
            yield metric, exact_shares(-np.diff(found.estimate), STEPS)
        else:
            yield metric, step_shares(found, CHAIN, level=settings.level)


def residual_levels(
    values: xr.DataArray, residuals: xr.Dataset, metric: str, resamples: int, seed: int
) -> Draws:
    """Minus a mean residual of every rung of the chain, so that a drop is a degradation.

    Args:
        values: (metric, rung, vector) at one damping of each rung.
        residuals: ``/residuals``, which says how many vectors there are, and whether they are all.
        metric: which residual.
        resamples: of the vectors; of all that there are, one that is the estimate.
        seed: of the resamples.
    """
    count = int(residuals["vectors"].sel(metric=metric))
    each = values.sel(metric=metric, rung=list(CHAIN)).values[:, : max(count, 1)]
    if int(residuals["every"].sel(metric=metric)) or count < 2:
        mean = each.mean(1)
        return Draws(-mean, -mean[None])
    generator = np.random.default_rng((seed, 11, count))
    weights = generator.multinomial(count, np.full(count, 1.0 / count), resamples) / count
    return Draws(-each.mean(1), -weights @ each.T)


def frobenius_shares(
    samples: Float[np.ndarray, "steps probes"], steps: tuple[str, ...], settings: Settings
) -> StepShares:
    """Shares of the squared error; intervals over the probes, where there are any."""
    exact = exact_shares(samples.mean(1), steps)
    count = samples.shape[1]
    if count == 1:
        return exact
    generator = np.random.default_rng((settings.seed, 3))
    picks = generator.integers(0, count, (settings.resamples, count))
    draws = samples[:, picks].mean(2)  # (steps, resamples)
    total = draws.sum(0)
    tail = 50.0 * (1.0 - settings.level)

    def interval(values: np.ndarray, estimate: np.ndarray) -> np.ndarray:
        lower, upper = np.percentile(values, [tail, 100.0 - tail], axis=-1)
        return np.stack([lower, estimate, upper], -1)

    return replace(
        exact,
        drop=interval(draws, exact.drop[:, 1]),
        share=interval(draws / total, exact.share[:, 1]),
        total=interval(total, exact.total[1]),
    )
