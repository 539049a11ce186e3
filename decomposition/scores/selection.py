"""Score one base model's rungs over every protocol's damping grid, and choose the dampings.

What leaves this stage is small: curves against damping, and each mask's prediction at the damping
that the other fold chose. Several base models meet only in ``scores/levels.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from tqdm import tqdm

from decomposition.names import CHAIN, CI_BOUNDS
from decomposition.scores.bootstrap import Resamples, bootstrap
from decomposition.scores.crossfit import at_choice, choose, fold_lds, refine
from decomposition.scores.effects import Effects, known, solved
from decomposition.scores.lds import lds, linearise
from decomposition.scores.protocols import PROTOCOLS, TUNED, Grid
from decomposition.settings import Settings


@dataclass(frozen=True)
class Selection:
    """One base model's predictions at the chosen dampings."""

    nodes: tuple[str, ...]
    chosen: dict[str, Float[np.ndarray, "nodes M Q"]]
    """Protocol → each mask's prediction at the damping chosen on the other fold; NaN of a node that
    was not solved there."""
    dampings: dict[str, dict[str, float]]
    """Protocol → node → λ (geometric mean over the folds); NaN where it is not one number."""
    edges: dict[str, dict[str, bool]]
    """Protocol → node → whether a fold chose the first or last damping of the grid."""

    def missing(self, protocol: str) -> tuple[str, ...]:
        """Nodes that were not solved at the settings that the chain takes."""
        there = solved(self.chosen[protocol])
        return tuple(node for node, ok in zip(self.nodes, there, strict=True) if not ok)


def select(
    effects: Effects,
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
    the first node takes its place. A common setting is one at which every rung of the chain is
    solved, whatever other rungs are: one of those that is not solved there has no predictions.
    A protocol without any common setting is left out.

    Args:
        effects: of every rung and baseline, in chain order.
        protocol_grids: of the common protocols, ``equal`` first.
        folds: of the masks, for the choice of dampings.
        weights: resamples, for the curves' intervals.
        settings: level.
        reference: the node at whose optimum all nodes are read under a common protocol.
        progress: show bars.
        with_curves: False leaves them out: their intervals take most of the time.
    """
    names, truth, equal = effects.rungs, effects.truth, protocol_grids["equal"]
    _prepare(effects, protocol_grids, progress)
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
                    stack[i] = effects.at(name, grid.dampings[name].tolist())
                    free = effects.scorers[name].damping_free
                    if with_curves:
                        lines.append(_curve(stack[i], truth, weights, settings.level, free))
                bar.update()
            if with_curves:
                path = "/attribution" if protocol == "equal" else f"/attribution/{protocol}"
                curves[path] = _dataset(lines, grid, names)
            if protocol == "equal":
                at_equal, equal_lines = stack, lines
                rows = np.flatnonzero(solved(stack).any(1))
            nodes = tuple(names[row] for row in rows)
            effects_of = stack if len(rows) == len(names) else stack[rows]  # a copy
            there = solved(effects_of)
            own = [i for i, node in enumerate(nodes) if node in CHAIN] or list(range(len(nodes)))
            common = there[own].all(0)
            if common.any():
                anchor = nodes.index(reference) if reference in nodes else 0
                levels = np.where(there, fold_lds(known(effects_of), truth, folds), np.nan)
                choice = choose(np.where(common, levels, np.nan), anchor, nodes[anchor])
                picked = at_choice(effects_of, choice, folds)
                picked[np.isnan(picked).any((1, 2))] = np.nan  # in one fold: nowhere
                chosen[protocol] = picked
                dampings[protocol] = {
                    node: _geometric_mean(grid.dampings[node][choice.index[:, i]])
                    for i, node in enumerate(nodes)
                }
                edges[protocol] = {node: bool(choice.edge[i]) for i, node in enumerate(nodes)}
            if protocol == "equal":
                tuned = _tuned(effects, nodes, effects_of, folds, grid)
                chosen[TUNED], dampings[TUNED], edges[TUNED] = tuned
    for rule, ruled in effects.rules.items():
        chosen[rule] = np.stack([effects.under(rule, node) for node in nodes])
        dampings[rule] = {node: ruled.dampings.get(node, np.nan) for node in nodes}
    order = [protocol for protocol in (*PROTOCOLS, *effects.rules) if protocol in chosen]
    selection = Selection(
        tuple(names[row] for row in rows),
        {protocol: chosen[protocol] for protocol in order},
        {protocol: dampings[protocol] for protocol in order},
        edges,
    )
    return selection, curves


def _prepare(effects: Effects, protocol_grids: Mapping[str, Grid], progress: bool) -> None:
    """What every rung's dampings of all protocols share is done once."""
    with tqdm(effects.rungs, desc="solving", unit="rung", disable=not progress) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            wanted = [d for grid in protocol_grids.values() for d in grid.dampings[name].tolist()]
            wanted += effects.ruled_dampings(name)
            keep = protocol_grids["equal"].dampings[name].tolist()
            effects.prepare(name, wanted, keep, progress=progress)


@dataclass(frozen=True)
class _Curve:
    per_query: Float[np.ndarray, "D Q"]
    interval: Float[np.ndarray, "D 3"]


def _curve(
    effects: np.ndarray, truth: np.ndarray, weights: Resamples, level: float, damping_free: bool
) -> _Curve:
    """LDS at every damping; NaN where nothing was solved."""
    there = solved(effects)
    per_query = np.full((len(effects), truth.shape[1]), np.nan)
    intervals = np.full((len(effects), 3), np.nan)
    if there.any():
        linear = linearise(effects[:1] if damping_free else effects[there], truth)
        per_query[there] = linear.per_query
        intervals[there] = bootstrap(linear, weights).interval(level)
    return _Curve(per_query, intervals)


def _tuned(
    effects: Effects,
    nodes: Sequence[str],
    stack: Float[np.ndarray, "nodes D M Q"],
    folds: np.ndarray,
    grid: Grid,
) -> tuple[np.ndarray, dict[str, float], dict[str, bool]]:
    """Each rung at its own optimum: the grid of ``equal`` with a finer one around the optimum."""
    truth = effects.truth
    chosen, dampings, edges = [], {}, {}
    for node, on_grid in zip(nodes, stack, strict=True):
        rung = effects.scorers[node]
        if rung.damping_free:
            chosen.append(on_grid[0])
            dampings[node], edges[node] = float(grid.settings[len(grid.settings) // 2]), False
            continue
        there = solved(on_grid)
        own, predicted = grid.settings[there], on_grid[there]
        extra: dict[float, np.ndarray] = {}

        def evaluate(
            new: np.ndarray, node: str = node, extra: dict[float, np.ndarray] = extra
        ) -> np.ndarray:
            effects.prepare(node, new.tolist())
            values = effects.at(node, new.tolist())
            extra.update((d, v) for d, v in zip(new.tolist(), values, strict=True) if solved(v))
            return lds(known(values), truth).mean

        curve = lds(predicted, truth).mean
        if rung.refinable and not np.isnan(curve).all():  # predictions that never vary: no optimum
            refine(own, curve, evaluate, rounds=1)
            own = np.concatenate([own, np.array(list(extra))])
            predicted = np.concatenate([predicted, *(e[None] for e in extra.values())])
        order = np.argsort(own)
        choice = choose(fold_lds(predicted[order][None], truth, folds))
        chosen.append(at_choice(predicted[order][None], choice, folds)[0])
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
