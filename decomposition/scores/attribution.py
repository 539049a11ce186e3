"""Group /attribution and what hangs on it: LDS, noise ceiling, agreement, policies, levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from decomposition.base_model import BaseModel
from decomposition.chain.paper_protocol import PAPER_RUNGS
from decomposition.names import BASELINES, CHAIN, CI_BOUNDS
from decomposition.scores.agreement import STRIDE, add_agreement, agreement_group
from decomposition.scores.bootstrap import Resamples, resample
from decomposition.scores.ceiling import Ceiling, noise_ceiling
from decomposition.scores.crossfit import mask_folds
from decomposition.scores.effects import Effects
from decomposition.scores.levels import Levels, draws_dataset, joint_levels
from decomposition.scores.policies import policies_group
from decomposition.scores.protocols import COMMON, PROTOCOLS, TUNED, Grid, grids, rank_bound
from decomposition.scores.scorer import treatment
from decomposition.scores.selection import Selection, select
from decomposition.settings import Settings
from decomposition.shares.localisation import where_groups
from decomposition.shares.resolution import WidthCurve, repeats_curve

REFERENCE = "hessian"
"""The rung at whose optimum the others are read under a common protocol."""
LOW_CEILING = 0.5


@dataclass(frozen=True)
class Design:
    """What all base models of a cell share: folds, resamples, settings."""

    folds: Int[np.ndarray, " M"]
    weights: Resamples
    settings: Settings

    @staticmethod
    def of(effects: Effects, settings: Settings) -> Design:
        """The design for truths of this size; the same for every cell of as many masks, queries."""
        masks, queries = effects.truth.shape
        weights = resample(
            masks, queries, settings.base_seeds, settings.resamples, seed=(settings.seed, 1)
        )
        return Design(mask_folds(masks, seed=(settings.seed, 2)), weights, settings)

    @property
    def single(self) -> Resamples:
        """The same resamples of masks and queries, for one base model."""
        return Resamples(
            self.weights.masks, self.weights.queries, np.ones((len(self.weights.masks), 1))
        )


@dataclass(frozen=True)
class Scored:
    """One base model's part in the levels, and its tables."""

    selection: Selection
    truth: Float[np.ndarray, "M Q"]
    dampings: Float[np.ndarray, " D"]
    """The grid of one λ for all rungs."""
    at_nodes: tuple[str, ...]
    """The rungs of the chain, and of the paper's where all of those are there."""
    at_damping: Float[np.ndarray, "D at_nodes M Q"]
    """Predicted effects of those there."""
    datasets: dict[str, xr.Dataset]
    """Group path → dataset."""
    undamped: frozenset[str] = frozenset()
    """Nodes that no damping changes, baselines apart: they have no λ to tell."""


def score(
    base: BaseModel, effects: Effects, design: Design, detail: bool, progress: bool
) -> Scored:
    """Choose dampings and score; ``detail`` adds curves, agreement, policies, places."""
    settings = design.settings
    protocol_grids = grids_of(base, settings)
    selection, datasets = select(
        effects,
        protocol_grids,
        design.folds,
        design.single,
        settings,
        REFERENCE,
        progress,
        with_curves=detail,
    )
    equal = protocol_grids["equal"].settings
    if detail:
        add_agreement(datasets["/attribution"], base.scorers, REFERENCE, settings.negative)
        policies = policies_group(effects, equal, design.folds, design.single, settings.level)
        if policies is not None:
            datasets["/policies"] = policies
        blocks = {block.name: block.slice for block in base.problem.blocks}
        datasets |= where_groups(
            effects, selection, blocks, design.folds, design.single, settings.level
        )
    else:
        axes = {"rung": list(effects.rungs), "ci_bound": list(CI_BOUNDS)}
        datasets["/attribution"] = xr.Dataset(coords=axes)
    best, edge = selection.dampings[TUNED], selection.edges[TUNED]
    undamped = frozenset(
        name for name, rung in base.scorers.items() if rung.damping_free and name not in BASELINES
    )
    datasets["/attribution"]["best_damping"] = (
        "rung",
        [np.nan if name in undamped else best.get(name, np.nan) for name in effects.rungs],
    )
    datasets["/attribution"]["edge"] = (
        "rung",
        [int(edge.get(name, False)) for name in effects.rungs],
    )
    papers = PAPER_RUNGS if set(PAPER_RUNGS) <= set(effects.rungs) else ()
    nodes = tuple(dict.fromkeys((*CHAIN, *papers)))
    at_damping = np.stack([effects.at(rung, equal.tolist()) for rung in nodes], axis=1)
    return Scored(selection, effects.truth, equal, nodes, at_damping, datasets, undamped)


def without_truth(base: BaseModel, settings: Settings, progress: bool) -> xr.Dataset:
    """``/attribution`` of a base model whose truth cannot be afforded: agreement alone."""
    dampings = grids_of(base, settings)["equal"].settings
    kept = dampings[::STRIDE].tolist()
    for rung in base.scorers.values():
        rung.prepare(None, dampings.tolist(), kept, settings.negative, progress)
    return agreement_group(base.scorers, dampings, REFERENCE, settings.negative)


def grids_of(base: BaseModel, settings: Settings) -> dict[str, Grid]:
    """The damping grid of every protocol for this base model."""
    return grids(base.scorers, settings.multipliers(), REFERENCE, rank_bound(base.problem))


def combine(scored: Sequence[Scored], design: Design) -> Levels:
    """Joint levels of all base models: the nodes and protocols that all of them have."""
    selections = [one.selection for one in scored]
    protocols = [p for p in selections[0].chosen if all(p in one.chosen for one in selections)]
    nodes = [n for n in selections[0].nodes if all(n in one.nodes for one in selections)]
    chosen = []
    for one in selections:
        rows = [one.nodes.index(node) for node in nodes]
        chosen.append(np.stack([one.chosen[p][rows] for p in protocols]))
    truths = [one.truth for one in scored]
    return joint_levels(chosen, truths, design.folds, design.weights, protocols, nodes)


def levels_groups(
    scored: Sequence[Scored], design: Design, ceiling: Ceiling | None, repeats: WidthCurve | None
) -> dict[str, xr.Dataset]:
    """``/levels``: all that shares and verdicts are made from; and the chain at one λ for all.

    Args:
        scored: of every base model; the dampings that are told are those of the first.
        design: what they share.
        ceiling: noise ceiling, where there is one.
        repeats: what more repeats would buy, where there are at least two.
    """
    levels = combine(scored, design)
    data = levels.dataset()
    dampings = scored[0].selection.dampings
    data["damping"] = (
        ("protocol", "rung"),
        [
            [np.nan if node in scored[0].undamped else dampings[p][node] for node in levels.nodes]
            for p in levels.protocols
        ],
    )
    if ceiling is not None:
        for name, draws in (("ceiling", ceiling.ceiling), ("reliability", ceiling.reliability)):
            data[name] = ((), float(draws.estimate))
            data[f"{name}_draws"] = ("draw", draws.draws.astype(np.float32))
    if repeats is not None:
        data["relative_width"] = ("repeats", repeats.width)
        data.coords["repeats"] = repeats.amount
    multipliers = design.settings.multipliers()
    names = [f"{multiplier:g}" for multiplier in multipliers]
    stacks, truths = [one.at_damping for one in scored], [one.truth for one in scored]
    nodes = scored[0].at_nodes
    chain = joint_levels(stacks, truths, design.folds, design.weights, names, nodes)
    coordinates = {"multiplier": multipliers.tolist(), "rung": list(nodes)}
    at_damping = draws_dataset(chain.draws, coordinates).reindex(rung=list(levels.nodes))
    at_damping["damping_value"] = ("multiplier", scored[0].dampings)
    return {"/levels": data, "/levels/at_damping": at_damping}


def of_protocols(
    dampings: Mapping[str, Mapping[str, float]],
) -> dict[str, Mapping[str, float]]:
    """Without the rules, whose inverses are not damped by one λ."""
    return {protocol: dampings[protocol] for protocol in PROTOCOLS if protocol in dampings}


def ceiling_of(effects: Effects, design: Design) -> Ceiling | None:
    """Noise ceiling of a base model's bank."""
    return noise_ceiling(
        effects.measured.truth,
        effects.measured.second,
        design.single,
        seed=(design.settings.seed, 3),
    )


def repeats_curve_of(effects: Effects, one: Scored, level: float) -> WidthCurve | None:
    """Relative interval width of the reference rung's LDS against repeats; None with one repeat."""
    truth, nodes = effects.measured.truth, one.selection.nodes
    if truth.shape[1] < 2 or REFERENCE not in nodes:
        return None
    prediction = one.selection.chosen[TUNED][nodes.index(REFERENCE)]
    return repeats_curve(prediction, truth, level=level)


def add_ceiling(data: xr.Dataset, ceiling: Ceiling | None, level: float) -> None:
    """Ceiling and reliability, where there are any."""
    if ceiling is not None:
        data["ceiling"] = ("ci_bound", ceiling.ceiling.interval(level))
        data["reliability"] = ("ci_bound", ceiling.reliability.interval(level))
        data.attrs |= {"ceiling_source": ceiling.source, "ceiling_masks": ceiling.masks}


def unsolved(base: BaseModel, dampings: np.ndarray, negative: str) -> list[str]:
    """What is missing of rungs that were not solved at every damping, and why."""
    found: dict[tuple[int, str], tuple[list[str], str]] = {}
    for name, rung in base.scorers.items():
        if base.effects is not None:
            said = [base.effects.unsolved(name, damping) for damping in dampings.tolist()]
        else:
            said = [rung.unsolved.get(treatment(d, negative)) for d in dampings.tolist()]
        reasons = [reason for reason in said if reason is not None]
        if reasons:
            alike = len(reasons), reasons[-1].split(":")[0]
            found.setdefault(alike, ([], reasons[-1]))[0].append(name)
    return [
        f"no scores of {', '.join(names)} at {count} of {len(dampings)} dampings, nor an LDS: "
        + reason
        for (count, _), (names, reason) in found.items()
    ]


def notes(selection: Selection, ceiling: Ceiling | None) -> list[str]:
    """What a reader must know before believing the scores."""
    found = [
        f"the best damping of {node} lies on an edge of the grid: widen --damping-low or "
        "--damping-high"
        for node, edge in selection.edges[TUNED].items()
        if edge
    ]
    found += [
        f"protocol {protocol}: the optimum of {REFERENCE} lies on an edge of the grid"
        for protocol in COMMON
        if selection.edges.get(protocol, {}).get(REFERENCE)
    ]
    found += [
        f"protocol {protocol} has no levels: at none of its settings every rung of the chain was "
        "solved"
        for protocol in COMMON
        if protocol not in selection.chosen
    ]
    found += [
        f"protocol {protocol}: {node} has no level, for it was not solved at the dampings that "
        "the chain is read at"
        for protocol in (*COMMON, TUNED)
        if protocol in selection.chosen
        for node in selection.missing(protocol)
    ]
    constant = (np.ptp(selection.chosen[TUNED], axis=1) == 0).all(1)
    found += [
        f"{node} predicts the same for all masks, on every query: it has no LDS"
        for node in np.array(selection.nodes)[constant]
    ]
    if ceiling is None:
        found.append(
            "no noise ceiling: it needs two repeats, or subsets retrained in a second order"
        )
    elif float(ceiling.ceiling.estimate) < LOW_CEILING:
        found.append(
            f"the noise ceiling is low ({float(ceiling.ceiling.estimate):.2f}): most of what was "
            "measured is training randomness; use more repeats"
        )
    return found


def refused(effects: Effects) -> list[str]:
    """Which rungs a rule of damping does not serve, and why."""
    found = []
    for rule, ruled in effects.rules.items():
        for reason in dict.fromkeys(ruled.refused.values()):
            names = [name for name, said in ruled.refused.items() if said == reason]
            found.append(f"damping rule {rule}: no level of {', '.join(names)}: {reason}")
    return found


def left_out(base: BaseModel) -> list[str]:
    """What scores of rungs that are known by their products do not tell, and how to have it."""
    names = [name for name, rung in base.rungs.items() if rung.matrix_free]
    if not names:
        return []
    return [
        f"{', '.join(names)}: known by products, so that negative eigenvalues are treated under "
        "one policy (--negative chooses it), and no loss is told by bands of the spectrum; raise "
        "--memory to have both"
    ]
