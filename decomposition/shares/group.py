"""Group /shares: what each step costs, under every damping protocol and in every order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.chain import CHAIN, STEPS
from decomposition.results.schema import CI_BOUNDS, CROSS_TERM
from decomposition.scores.ceiling import Ceiling, corrected
from decomposition.scores.levels import Levels
from decomposition.scores.protocols import PROTOCOLS
from decomposition.settings import Settings
from decomposition.shares.lattice import CURVATURE
from decomposition.shares.orders import mismatch_group, order_groups, resolution_group
from decomposition.shares.resolution import WidthCurve
from decomposition.shares.steps import StepShares, exact_shares, step_shares
from decomposition.shares.verdict import verdict

METRICS = ("frobenius_squared", "damped_inverse_squared", "lds")


def shares(
    split: Mapping[str, Float[np.ndarray, " probes"]],
    misaligned: xr.DataArray | None,
    levels: Levels | None,
    dampings: Mapping[str, Mapping[str, float]],
    ceiling: Ceiling | None,
    settings: Settings,
    by_repeats: WidthCurve | None = None,
) -> dict[str, xr.Dataset]:
    """Group path → dataset.

    Args:
        split: squared Frobenius error of each step, and the cross term: one number where it is
            exact, else one for every random probe.
        misaligned: (protocol, rung) squared error of the damped inverse against the Hessian's, up
            to the scale that no rank sees; a step's drop is the increase of this error.
        levels: LDS levels; None without attribution.
        dampings: protocol → node → λ at which its level is read.
        ceiling: noise ceiling, where there is one.
        settings: coverage of the intervals.
        by_repeats: what more repeats would buy, where there are at least two.
    """
    steps = (*STEPS, CROSS_TERM)
    protocols = PROTOCOLS if levels is None else levels.protocols
    shape = (len(METRICS), len(protocols), len(steps))
    drop, share = np.full((*shape, 3), np.nan), np.full((*shape, 3), np.nan)
    total = np.full((*shape[:2], 3), np.nan)
    defined, degrades = np.zeros(shape[:2], np.int64), np.full(shape, np.nan)

    def put(metric: str, protocol: str, result: StepShares) -> None:
        i, j = METRICS.index(metric), list(protocols).index(protocol)
        rows = [steps.index(step) for step in result.steps]
        drop[i, j, rows], share[i, j, rows] = result.drop, result.share
        total[i, j], defined[i, j] = result.total, int(result.defined)
        degrades[i, j, rows] = result.probability_degrades

    frobenius = _frobenius_shares(split, steps, settings)
    for protocol in protocols:
        put("frobenius_squared", protocol, frobenius)
        if misaligned is not None and protocol in misaligned["protocol"]:
            errors = misaligned.sel(protocol=protocol).sel(rung=list(CHAIN)).values
            put("damped_inverse_squared", protocol, exact_shares(np.diff(errors), STEPS))
        if levels is not None:
            draws = levels.of(protocol, CHAIN)
            put("lds", protocol, step_shares(draws, CHAIN, level=settings.level))
    table = ("metric", "protocol", "step", "ci_bound")
    data = xr.Dataset(
        {
            "drop": (table, drop),
            "share": (table, share),
            "total": (("metric", "protocol", "ci_bound"), total),
            "defined": (("metric", "protocol"), defined),
            "probability_degrades": (("metric", "protocol", "step"), degrades),
        },
        {
            "metric": list(METRICS),
            "protocol": list(protocols),
            "step": list(steps),
            "ci_bound": list(CI_BOUNDS),
        },
    )
    groups = {"/shares": data}
    if levels is not None:
        _add_levels(data, levels, dampings, ceiling, settings)
        if "equal" in levels.protocols:  # a rung of the user's own may share no λ with the others
            groups["/shares/mismatch"] = mismatch_group(levels, settings.level)
        groups["/shares/resolution"] = resolution_group(levels, settings.level, by_repeats)
        if set(CURVATURE.taken) <= set(levels.nodes):
            groups |= order_groups(levels, METRICS, steps, settings.level)
    return groups


def _frobenius_shares(
    split: Mapping[str, Float[np.ndarray, " probes"]], steps: tuple[str, ...], settings: Settings
) -> StepShares:
    """Shares of the squared error; intervals over the probes, where there are any."""
    samples = np.stack([split[step] for step in steps])
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


def _add_levels(
    data: xr.Dataset,
    levels: Levels,
    dampings: Mapping[str, Mapping[str, float]],
    ceiling: Ceiling | None,
    settings: Settings,
) -> None:
    """The waterfall: levels, their dampings, the premise gap, and the verdict in words."""
    data.coords["rung"] = list(levels.nodes)
    data["level"] = (("protocol", "rung", "ci_bound"), levels.draws.interval(settings.level))
    data["level_damping"] = (
        ("protocol", "rung"),
        np.array([[dampings[p][node] for node in levels.nodes] for p in levels.protocols]),
    )
    if ceiling is not None:
        data["corrected"] = (
            ("protocol", "rung", "ci_bound"),
            corrected(levels.draws, ceiling.ceiling).interval(settings.level),
        )
        gaps = [ceiling.ceiling.minus(levels.of(p, ["hessian"])[0]) for p in levels.protocols]
        data["premise"] = (
            ("protocol", "ci_bound"),
            np.stack([gap.interval(settings.level) for gap in gaps]),
        )
    verdicts = {}
    for protocol in levels.protocols:
        found = verdict(
            levels.of(protocol, CHAIN),
            levels.parts(protocol, CHAIN),
            levels.masks,
            CHAIN,
            level=settings.level,
        )
        defined = bool(data["defined"].sel(metric="lds", protocol=protocol))
        verdicts[protocol] = {
            "candidate": found.candidate,
            "resolved": found.resolved and defined,
            "probability": found.probability,
            "more_masks": found.more_masks,
            "text": found.text if defined else "not resolved: the total loss is within noise",
        }
    data.attrs["verdict"] = json.dumps(verdicts)
