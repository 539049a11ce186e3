"""Shares that do not hang on one order of the steps: the lattice and its Shapley value.

A node is the set of steps already taken. The steps of the curvature chain commute in part:
the Kronecker basis needs blocks, product eigenvalues need that basis and the GGN. Seven nodes
are feasible and three orders lead from the Hessian to K-FAC.

For each order the drops add up to the total. The precedence-constrained Shapley value is their
mean over all feasible orders (Faigle & Kern 1992, "The Shapley value for cooperative games
under precedence constraints"); the spread over the orders says how much the order matters.
The interaction of two steps at a node where both are feasible is
I(a, b) = [L(S∪a) − L(S∪ab)] − [L(S) − L(S∪b)]: how much more b costs once a is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from decomposition.names import CI_BOUNDS
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import Levels
from decomposition.shares.steps import ShareError, Step, contrasts, excludes_zero, ratio


@dataclass(frozen=True)
class Node:
    """A feasible approximation by its three coordinates."""

    source: str
    """`hessian` or `ggn`."""
    coupling: str
    """`full` or `block`."""
    structure: str
    """`exact`, `eigenbasis` (corrected eigenvalues) or `product` (Kronecker eigenvalues)."""

    @property
    def taken(self) -> frozenset[str]:
        """The steps that lead here from the Hessian."""
        steps = {
            "linearisation": self.source == "ggn",
            "cross_layer": self.coupling == "block",
            "eigenbasis": self.structure != "exact",
            "eigenvalues": self.structure == "product",
        }
        return frozenset(step for step, done in steps.items() if done)


NODES = {
    "hessian": Node("hessian", "full", "exact"),
    "ggn": Node("ggn", "full", "exact"),
    "block_hessian": Node("hessian", "block", "exact"),
    "block_ggn": Node("ggn", "block", "exact"),
    "ekfac_hessian": Node("hessian", "block", "eigenbasis"),
    "ekfac": Node("ggn", "block", "eigenbasis"),
    "kfac": Node("ggn", "block", "product"),
}


@dataclass(frozen=True)
class Lattice:
    """Feasible nodes, each the set of steps taken; the empty and the full set are among them."""

    taken: dict[str, frozenset[str]]
    """Node name → steps taken."""
    steps: tuple[str, ...]
    """All steps, in the order of the tables."""

    @cached_property
    def orders(self) -> tuple[tuple[Step, ...], ...]:
        """Every feasible order, as steps with the nodes they join.

        Raises:
            ShareError: no order leads from the empty to the full set.
        """
        names = {steps: name for name, steps in self.taken.items()}
        found: list[tuple[Step, ...]] = []

        def extend(path: tuple[Step, ...], done: frozenset[str]) -> None:
            if len(done) == len(self.steps):
                found.append(path)
            for step in self.steps:
                after = done | {step}
                if step not in done and after in names:
                    extend((*path, Step(step, names[done], names[after])), after)

        if frozenset() in names:
            extend((), frozenset())
        if not found:
            raise ShareError(f"no order of {', '.join(self.steps)} stays within {list(self.taken)}")
        return tuple(found)

    @cached_property
    def squares(self) -> tuple[tuple[Step, Step], ...]:
        """Pairs (b before a, b after a) for every node at which steps a and b are both feasible."""
        names = {steps: name for name, steps in self.taken.items()}
        pairs: list[tuple[Step, Step]] = []
        for base, start in names.items():
            for position, a in enumerate(self.steps):
                for b in self.steps[position + 1 :]:
                    corners = (base | {a}, base | {b}, base | {a, b})
                    if not {a, b} & base and all(corner in names for corner in corners):
                        one, other, both = (names[corner] for corner in corners)
                        pairs.append((Step(b, start, other), Step(b, one, both)))
        return tuple(pairs)


CURVATURE = Lattice(
    {name: node.taken for name, node in NODES.items()},
    ("linearisation", "cross_layer", "eigenbasis", "eigenvalues"),
)


@dataclass(frozen=True)
class Interaction:
    """How much more a step costs once another is taken."""

    step: str
    after: str
    """The other step, by the node that it leads to."""
    at: str
    """The node at which both are feasible."""
    value: NDArray[np.float64]
    """(3,) lower, estimate, upper."""


@dataclass(frozen=True)
class LatticeShares:
    """Drops and shares of S steps along O orders; last axis lower, estimate, upper."""

    steps: tuple[str, ...]
    orders: tuple[str, ...]
    """Each order as `step > step > …`."""
    drop_by_order: NDArray[np.float64]
    """(O, S, 3)."""
    share_by_order: NDArray[np.float64]
    """(O, S, 3); NaN where undefined."""
    first: NDArray[np.float64]
    """(S, 3) drop of each step taken as early as feasible."""
    last: NDArray[np.float64]
    """(S, 3) drop of each step taken as late as feasible."""
    shapley: NDArray[np.float64]
    """(S, 3) mean drop over orders; sums to the total."""
    shapley_share: NDArray[np.float64]
    """(S, 3); NaN where undefined."""
    spread: NDArray[np.float64]
    """(S, 3) largest minus smallest drop over the orders; never negative, so its lower bound is
    no test of whether the order matters: the interactions are."""
    interactions: tuple[Interaction, ...]
    total: NDArray[np.float64]
    """(3,)."""
    defined: bool


def drops_by_order(levels: Draws, nodes: Sequence[str], lattice: Lattice = CURVATURE) -> Draws:
    """Drops (O, S) of every step along every feasible order, from levels (nodes,)."""
    rows = []
    for order in lattice.orders:
        by_name = {step.name: step for step in order}
        rows.append(contrasts(nodes, [by_name[name] for name in lattice.steps]))
    stacked = levels.combine(np.concatenate(rows))
    shape = (len(lattice.orders), len(lattice.steps))
    return Draws(stacked.estimate.reshape(shape), stacked.draws.reshape(-1, *shape))


def shapley(by_order: Draws) -> Draws:
    """Precedence-constrained Shapley value (S,): the mean over orders (O, S)."""
    return Draws(by_order.estimate.mean(0), by_order.draws.mean(1))


def lattice_shares(
    levels: Draws, nodes: Sequence[str], lattice: Lattice = CURVATURE, level: float = 0.95
) -> LatticeShares:
    """Everything the lattice says, from levels (nodes,) carrying their resamples.

    Exact quantities enter as `Draws(values, values[None])`.

    Raises:
        ShareError: a node of the lattice has no level.
    """
    by_order = drops_by_order(levels, nodes, lattice)
    value = shapley(by_order)
    total = Draws(value.estimate.sum(), value.draws.sum(-1))
    total_interval = total.interval(level)
    defined = excludes_zero(total_interval)
    spread = Draws(np.ptp(by_order.estimate, axis=0), np.ptp(by_order.draws, axis=1))
    first, last = (levels.combine(_extreme(nodes, lattice, late)) for late in (False, True))

    def share(part: Draws) -> NDArray[np.float64]:
        undefined = np.full((*part.estimate.shape, 3), np.nan)
        return ratio(part, total, level) if defined else undefined

    return LatticeShares(
        lattice.steps,
        tuple(" > ".join(step.name for step in order) for order in lattice.orders),
        by_order.interval(level),
        share(by_order),
        first.interval(level),
        last.interval(level),
        value.interval(level),
        share(value),
        spread.interval(level),
        _interactions(levels, nodes, lattice, level),
        total_interval,
        defined,
    )


def _extreme(nodes: Sequence[str], lattice: Lattice, late: bool) -> NDArray[np.float64]:
    """(S, nodes) contrasts of each step at its earliest or latest position over the orders."""
    chosen = []
    for name in lattice.steps:
        places = [
            (position, step)
            for order in lattice.orders
            for position, step in enumerate(order)
            if step.name == name
        ]
        places.sort(key=lambda place: place[0], reverse=late)
        chosen.append(places[0][1])
    return contrasts(nodes, chosen)


def _interactions(
    levels: Draws, nodes: Sequence[str], lattice: Lattice, level: float
) -> tuple[Interaction, ...]:
    found = []
    for before, after in lattice.squares:
        matrix = contrasts(nodes, [after]) - contrasts(nodes, [before])
        value = levels.combine(matrix)[0].interval(level)
        (other,) = lattice.taken[after.before] - lattice.taken[before.before]
        found.append(Interaction(before.name, other, before.before, value))
    return tuple(found)


def order_groups(
    levels: Levels, metrics: Sequence[str], steps: Sequence[str], level: float
) -> dict[str, xr.Dataset]:
    """Shares along each feasible order, marginals, Shapley mean with spread, interactions."""
    nodes = tuple(CURVATURE.taken)
    found = {p: lattice_shares(levels.of(p, nodes), nodes, level=level) for p in levels.protocols}
    first = next(iter(found.values()))
    bounds = {"ci_bound": list(CI_BOUNDS)}
    coordinates = {
        "metric": ["lds"],
        "protocol": list(levels.protocols),
        "step": list(first.steps),
    }

    def stack(name: str) -> np.ndarray:
        return np.stack([getattr(one, name) for one in found.values()])[None]

    table = ("metric", "protocol", "step", "ci_bound")
    by_order = xr.Dataset(
        {
            "share_by_order": (
                ("metric", "protocol", "order", "step", "ci_bound"),
                stack("share_by_order"),
            ),
            "drop_by_order": (
                ("metric", "protocol", "order", "step", "ci_bound"),
                stack("drop_by_order"),
            ),
            "first": (table, stack("first")),
            "last": (table, stack("last")),
        },
        coordinates | bounds | {"order": list(first.orders)},
    )
    mean = xr.Dataset(
        {
            "shapley": (table, stack("shapley_share")),
            "shapley_drop": (table, stack("shapley")),
            "spread": (
                ("metric", "protocol", "step"),
                np.ptp(stack("share_by_order")[..., 1], axis=2),
            ),
        },
        coordinates | bounds,
    )
    pairs = [f"{i.step} after {i.after}, at {i.at}" for i in first.interactions]
    interactions = xr.Dataset(
        {
            "interaction": (
                ("protocol", "pair", "ci_bound"),
                np.stack([[i.value for i in one.interactions] for one in found.values()]),
            )
        },
        {"protocol": list(levels.protocols), "pair": pairs} | bounds,
    )
    full = {"metric": list(metrics), "step": list(steps)}  # a child shares its parent's axes
    return {
        "/shares/orders": by_order.reindex(full),
        "/shares/shapley": mean.reindex(full),
        "/shares/interactions": interactions,
    }
