"""Score one base model's rungs over every protocol's damping grid, and choose the dampings.

What leaves this stage is small: curves against damping, and each mask's prediction at the damping
that the other fold chose. Studies of several base models meet only in ``stages/levels.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from decomposition.attribution.bootstrap import Resamples, bootstrap
from decomposition.attribution.lds import check_rung, lds, mean_truth
from decomposition.attribution.linearised import linearise
from decomposition.attribution.scorer import Scorer, effects_over
from decomposition.results.schema import CI_BOUNDS
from decomposition.settings import Settings
from decomposition.shares.crossfit import at_choice, choose, fold_lds, refine
from decomposition.stages.protocols import TUNED, Grid


@dataclass(frozen=True)
class Measured:
    """The bank's answer: what really happened to every query."""

    masks: Bool[np.ndarray, "M N"]
    truth: Float[np.ndarray, "M R Q"]
    second: Float[np.ndarray, "M2 Q"] | None

    @property
    def mean(self) -> Float[np.ndarray, "M Q"]:
        """Mean over repeats."""
        return mean_truth(self.truth)


@dataclass(frozen=True)
class Selection:
    """One base model's predictions at the chosen dampings."""

    nodes: tuple[str, ...]
    chosen: dict[str, Float[np.ndarray, "nodes M Q"]]
    """Protocol → each mask's prediction at the damping chosen on the other fold."""
    dampings: dict[str, dict[str, float]]
    """Protocol → node → λ (geometric mean over the folds)."""
    edges: dict[str, dict[str, bool]]
    """Protocol → node → whether a fold chose the first or last damping of the grid."""


def select(
    scorers: Mapping[str, Scorer],
    measured: Measured,
    protocol_grids: Mapping[str, Grid],
    folds: Int[np.ndarray, " M"],
    weights: Resamples,
    settings: Settings,
    reference: str,
    progress: bool = False,
    with_curves: bool = True,
) -> tuple[Selection, dict[str, xr.Dataset]]:
    """Selection, and the curves of LDS against damping as group path → dataset.

    ``with_curves=False`` leaves them out: their intervals take most of the time.
    """
    nodes, truth = tuple(scorers), measured.mean
    chosen: dict[str, np.ndarray] = {}
    dampings: dict[str, dict[str, float]] = {}
    edges: dict[str, dict[str, bool]] = {}
    curves: dict[str, xr.Dataset] = {}
    equal: np.ndarray | None = None
    equal_lines: list[_Curve] = []
    with tqdm(
        total=len(nodes) * len(protocol_grids), desc="scoring", unit="curve", disable=not progress
    ) as bar:
        for protocol, grid in protocol_grids.items():
            stack = np.empty((len(nodes), len(grid.settings), *truth.shape), np.float32)
            lines: list[_Curve] = []
            for i, node in enumerate(nodes):
                same = grid.dampings[node] is protocol_grids["equal"].dampings[node]
                if same and equal is not None:  # protocols often agree on a node's dampings
                    stack[i] = equal[i]
                    lines += equal_lines[i : i + 1]  # none without curves
                else:
                    stack[i] = _effects(
                        scorers[node], measured.masks, grid.dampings[node], settings
                    )
                    check_rung(stack[i], node, grid.dampings[node])
                    free = scorers[node].damping_free
                    if with_curves:
                        lines.append(_curve(stack[i], truth, weights, settings.level, free))
                bar.update()
            choice = choose(fold_lds(stack, truth, folds), nodes.index(reference), reference)
            chosen[protocol] = at_choice(stack, choice, folds)
            dampings[protocol] = {
                node: _geometric_mean(grid.dampings[node][choice.index[:, i]])
                for i, node in enumerate(nodes)
            }
            edges[protocol] = {node: bool(choice.edge[i]) for i, node in enumerate(nodes)}
            path = "/attribution" if protocol == "equal" else f"/attribution/{protocol}"
            if with_curves:
                curves[path] = _dataset(lines, grid, nodes)
            if protocol == "equal":
                tuned = _tuned(scorers, stack, measured, folds, grid, settings)
                chosen[TUNED], dampings[TUNED], edges[TUNED] = tuned
                equal, equal_lines = stack, lines
    return Selection(nodes, chosen, dampings, edges), curves


@dataclass(frozen=True)
class _Curve:
    per_query: Float[np.ndarray, "D Q"]
    interval: Float[np.ndarray, "D 3"]


def _effects(
    rung: Scorer, masks: np.ndarray, dampings: np.ndarray, settings: Settings
) -> Float[np.ndarray, "D M Q"]:
    if rung.damping_free:
        one = effects_over(rung, masks, dampings[:1].tolist(), settings.negative)
        return np.broadcast_to(one, (len(dampings), *one.shape[1:]))
    return effects_over(rung, masks, dampings.tolist(), settings.negative)


def _curve(
    effects: np.ndarray, truth: np.ndarray, weights: Resamples, level: float, damping_free: bool
) -> _Curve:
    linear = linearise(effects[:1] if damping_free else effects, truth)
    interval = bootstrap(linear, weights).interval(level)
    count = len(effects)
    return _Curve(
        np.broadcast_to(linear.per_query, (count, linear.per_query.shape[1])),
        np.broadcast_to(interval, (count, 3)),
    )


def _tuned(
    scorers: Mapping[str, Scorer],
    effects: np.ndarray,
    measured: Measured,
    folds: np.ndarray,
    grid: Grid,
    settings: Settings,
) -> tuple[np.ndarray, dict[str, float], dict[str, bool]]:
    """Each rung at its own optimum: the grid of ``equal`` with a finer one around the optimum."""
    truth = measured.mean
    chosen, dampings, edges = [], {}, {}
    for i, (node, rung) in enumerate(scorers.items()):
        if rung.damping_free:
            chosen.append(effects[i, 0])
            dampings[node], edges[node] = float(grid.settings[len(grid.settings) // 2]), False
            continue
        extra: dict[float, np.ndarray] = {}

        def evaluate(
            new: np.ndarray, rung: Scorer = rung, extra: dict[float, np.ndarray] = extra
        ) -> np.ndarray:
            values = effects_over(rung, measured.masks, new.tolist(), settings.negative)
            extra.update(zip(new.tolist(), values, strict=True))
            return lds(values, truth).mean

        curve = lds(effects[i], truth).mean
        if not np.isnan(curve).all():  # a rung whose predictions never vary has no optimum
            refine(grid.settings, curve, evaluate, rounds=1)
        own = np.concatenate([grid.settings, np.array(list(extra))])
        stack = np.concatenate([effects[i], *(e[None] for e in extra.values())])
        check_rung(stack, node, own)
        order = np.argsort(own)
        choice = choose(fold_lds(stack[order][None], truth, folds))
        chosen.append(at_choice(stack[order][None], choice, folds)[0])
        dampings[node] = _geometric_mean(own[order][choice.index[:, 0]])
        edges[node] = bool(choice.edge[0])
    return np.stack(chosen), dampings, edges


def _geometric_mean(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


def _dataset(lines: list[_Curve], grid: Grid, nodes: tuple[str, ...]) -> xr.Dataset:
    per_query = np.stack([line.per_query for line in lines])
    axis = "damping" if grid.protocol == "equal" else "setting"
    data = xr.Dataset(
        {
            "lds": (("rung", axis, "query"), per_query),
            "lds_mean": (("rung", axis, "ci_bound"), np.stack([line.interval for line in lines])),
        },
        {
            "rung": list(nodes),
            axis: grid.settings,
            "query": np.arange(per_query.shape[2]),
            "ci_bound": list(CI_BOUNDS),
        },
    )
    if grid.protocol != "equal":
        values = np.stack([grid.dampings[node] for node in nodes])
        data["damping_value"] = (("rung", axis), values)
    return data
