"""Score one base model's rungs over every protocol's damping grid, and choose the dampings.

What leaves this stage is small: curves against damping, and each mask's prediction at the damping
that the other fold chose. Studies of several base models meet only in ``shares/levels.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from decomposition.results.schema import CI_BOUNDS
from decomposition.scores.bootstrap import Resamples, bootstrap
from decomposition.scores.crossfit import at_choice, choose, fold_lds, refine
from decomposition.scores.lds import check_rung, lds, mean_truth
from decomposition.scores.linearised import linearise
from decomposition.scores.protocols import PROTOCOLS, TUNED, Grid
from decomposition.scores.scorer import Scorer, effects_over
from decomposition.settings import Settings


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

    A rung that is solved at no damping is no node of the selection; where the reference is none,
    the first node takes its place. A common setting is one at which every node is solved; a
    protocol without any is left out.

    Args:
        scorers: of every rung and baseline, in chain order.
        measured: the truth.
        protocol_grids: of the common protocols, ``equal`` first.
        folds: of the masks, for the choice of dampings.
        weights: resamples, for the curves' intervals.
        settings: policy and level.
        reference: the node at whose optimum all nodes are read under a common protocol.
        progress: show bars.
        with_curves: False leaves them out: their intervals take most of the time.
    """
    names, truth, equal = tuple(scorers), measured.mean, protocol_grids["equal"]
    _prepare(scorers, measured, protocol_grids, settings, progress)
    chosen: dict[str, np.ndarray] = {}
    dampings: dict[str, dict[str, float]] = {}
    edges: dict[str, dict[str, bool]] = {}
    curves: dict[str, xr.Dataset] = {}
    at_equal: np.ndarray | None = None
    equal_lines: list[_Curve] = []
    rows = np.arange(len(names))  # of the nodes
    with tqdm(
        total=len(names) * len(protocol_grids), desc="scoring", unit="curve", disable=not progress
    ) as bar:
        for protocol, grid in protocol_grids.items():
            stack = np.empty((len(names), len(grid.settings), *truth.shape), np.float32)
            lines: list[_Curve] = []
            for i, name in enumerate(names):
                same = grid.dampings[name] is equal.dampings[name]
                if same and at_equal is not None:  # protocols often agree on a node's dampings
                    stack[i] = at_equal[i]
                    lines += equal_lines[i : i + 1]  # none without curves
                else:
                    stack[i] = _effects(
                        scorers[name], measured.masks, grid.dampings[name], settings
                    )
                    _check(scorers[name], name, stack[i], grid.dampings[name])
                    free = scorers[name].damping_free
                    if with_curves:
                        lines.append(_curve(stack[i], truth, weights, settings.level, free))
                bar.update()
            if with_curves:
                path = "/attribution" if protocol == "equal" else f"/attribution/{protocol}"
                curves[path] = _dataset(lines, grid, names)
            if protocol == "equal":
                at_equal, equal_lines = stack, lines
                rows = np.flatnonzero(_solved(stack).any(1))
            nodes = tuple(names[row] for row in rows)
            common = _solved(stack)[rows].all(0)
            if common.any():
                anchor = nodes.index(reference) if reference in nodes else 0
                levels = _fold_levels(stack[rows], truth, folds)
                choice = choose(np.where(common, levels, np.nan), anchor, nodes[anchor])
                chosen[protocol] = at_choice(stack[rows], choice, folds)
                dampings[protocol] = {
                    node: _geometric_mean(grid.dampings[node][choice.index[:, i]])
                    for i, node in enumerate(nodes)
                }
                edges[protocol] = {node: bool(choice.edge[i]) for i, node in enumerate(nodes)}
            if protocol == "equal":
                own = {name: scorers[name] for name in nodes}
                tuned = _tuned(own, stack[rows], measured, folds, grid, settings)
                chosen[TUNED], dampings[TUNED], edges[TUNED] = tuned
    order = [protocol for protocol in PROTOCOLS if protocol in chosen]
    selection = Selection(
        tuple(names[row] for row in rows),
        {protocol: chosen[protocol] for protocol in order},
        {protocol: dampings[protocol] for protocol in order},
        edges,
    )
    return selection, curves


def _prepare(
    scorers: Mapping[str, Scorer],
    measured: Measured,
    protocol_grids: Mapping[str, Grid],
    settings: Settings,
    progress: bool,
) -> None:
    """What every rung's dampings of all protocols share is done once."""
    with tqdm(scorers.items(), desc="solving", unit="rung", disable=not progress) as bar:
        for name, rung in bar:
            bar.set_postfix_str(name)
            wanted = [d for grid in protocol_grids.values() for d in grid.dampings[name].tolist()]
            keep = protocol_grids["equal"].dampings[name].tolist()
            rung.prepare(measured.masks, wanted, keep, settings.negative, progress)


def _check(rung: Scorer, name: str, effects: np.ndarray, dampings: np.ndarray) -> None:
    """Raise ScoreError if predictions are not finite where the rung was solved."""
    known = np.array([damping not in rung.unsolved for damping in dampings.tolist()])
    check_rung(effects[known], name, dampings[known])


def _solved(effects: Float[np.ndarray, "nodes D M Q"]) -> Bool[np.ndarray, "nodes D"]:
    """At which dampings there are predictions: none at all is all NaN."""
    return ~np.isnan(effects[:, :, 0, 0])


def _fold_levels(
    effects: Float[np.ndarray, "nodes D M Q"], truth: np.ndarray, folds: np.ndarray
) -> Float[np.ndarray, "F nodes D"]:
    """Mean LDS within every fold; NaN where nothing was solved."""
    solved = _solved(effects)
    if solved.all():
        return fold_lds(effects, truth, folds)
    whole = np.where(solved[..., None, None], effects, np.float32(0))
    return np.where(solved, fold_lds(whole, truth, folds), np.nan)


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
    """LDS at every damping; NaN where nothing was solved."""
    solved = _solved(effects[None])[0]
    per_query = np.full((len(effects), truth.shape[1]), np.nan)
    intervals = np.full((len(effects), 3), np.nan)
    if solved.any():
        linear = linearise(effects[:1] if damping_free else effects[solved], truth)
        per_query[solved] = linear.per_query
        intervals[solved] = bootstrap(linear, weights).interval(level)
    return _Curve(per_query, intervals)


def _tuned(
    scorers: Mapping[str, Scorer],
    effects: Float[np.ndarray, "nodes D M Q"],
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
        solved = _solved(effects[i : i + 1])[0]
        own, stack = grid.settings[solved], effects[i, solved]
        extra: dict[float, np.ndarray] = {}

        def evaluate(
            new: np.ndarray, rung: Scorer = rung, extra: dict[float, np.ndarray] = extra
        ) -> np.ndarray:
            values = effects_over(rung, measured.masks, new.tolist(), settings.negative)
            extra.update(zip(new.tolist(), values, strict=True))
            return lds(values, truth).mean

        curve = lds(stack, truth).mean
        if rung.refinable and not np.isnan(curve).all():  # predictions that never vary: no optimum
            refine(own, curve, evaluate, rounds=1)
            own = np.concatenate([own, np.array(list(extra))])
            stack = np.concatenate([stack, *(e[None] for e in extra.values())])
            _check(rung, node, stack, own)
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
