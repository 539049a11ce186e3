"""Which approximation to use, at which damping, and what the next better one would cost.

Recommended is the cheapest rung that is not resolved to be worse than the best one, each read at
its own best damping; of those whose cost is within a factor of ``TIE``, the one of highest level.

The best one is not known, only estimated, and the rung with the highest estimate has been chosen
for it. So what is asked is whether a rung can be the best of all: the *model confidence set*
(Hansen, Lunde & Nason 2011, Econometrica 79, 453), which contains the best with probability
``level`` or more. With t_ij = (θ_j − θ_i) / s_ij over the rungs still in the set, the largest t is
compared with its distribution over the centred resamples, which are paired and joint; the rung that
it speaks against leaves, and the next is tested, until one test does not reject. A rung's p-value
is the largest of the tests up to its own, so that the number of rungs is accounted for.

The damping is one that needs no retraining where the rung is not resolved to lose by it, against
its own best λ. Costs are operations for all queries at one λ, with the gradients (``/cost``). A
rung without a counted cost, as scores made elsewhere, is not recommended, but told if it is better.

Over many cells levels are means of the cells, and costs geometric means; the recommendation *holds*
in a cell where the rung is not resolved to be worse than the best one there, and its *regret* is
how far it lies below that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.names import BASELINES, CI_BOUNDS, capitalised, rung_name
from decomposition.scores.bootstrap import Draws, mean_over_cells
from decomposition.scores.levels import Levels, read_levels, shared_protocols
from decomposition.scores.protocols import PROTOCOLS, TUNED
from decomposition.scores.rules import damping_rules
from decomposition.shares.verdict import masks_needed

TIE = 1.5
"""Costs within this factor are the same."""
MOST_DIGITS = 4
"""Decimals of a level, however narrow its interval."""
MUCH = 10.0
"""A cost that is smaller by this factor is another order."""
RANDOM = BASELINES[1]


@dataclass(frozen=True)
class Candidates:
    """Rungs that can be recommended: levels at their own best dampings, and what they cost."""

    names: tuple[str, ...]
    level: Draws
    """(K,)."""
    cost: Float[np.ndarray, " K"]
    """Operations; NaN where they are not counted."""
    p_value: Float[np.ndarray, " K"]
    """Of being the best of those that have a cost, and random scores; NaN of others."""

    def of(self, name: str) -> Draws:
        """Its level."""
        return self.level[self.names.index(name)]

    def behind(self, name: str, other: str) -> Draws:
        """How far the level of the first lies below that of the second."""
        return self.of(other).minus(self.of(name))

    def price(self, name: str) -> float:
        """What it costs."""
        return float(self.cost[self.names.index(name)])

    @property
    def counted(self) -> list[str]:
        """Those that have a cost."""
        return [n for n, cost in zip(self.names, self.cost, strict=True) if np.isfinite(cost)]

    @property
    def best(self) -> str:
        """The highest estimate of those; of equal ones the simpler, which comes later."""
        return max(reversed(self.counted), key=lambda name: float(self.of(name).estimate))

    def not_worse(self, level: float) -> list[str]:
        """Those that are not resolved to be worse than the best of all."""
        kept = dict(zip(self.names, self.p_value > 1.0 - level, strict=True))
        return [name for name in self.counted if kept[name]]

    @property
    def frontier(self) -> list[str]:
        """Those that no cheaper one equals in level, cheapest first."""
        found: list[str] = []
        for name in sorted(self.counted, key=lambda n: (self.price(n), -self.of(n).estimate)):
            if not found or self.of(name).estimate > self.of(found[-1]).estimate:
                found.append(name)
        return found


@dataclass(frozen=True)
class Recommendation:
    """What to use."""

    rung: str
    """"" where nothing can be recommended."""
    rule: str
    """The protocol that says its damping; "" where it has none."""
    resolved: bool
    """Whether every other rung is resolved to be worse."""
    best: str
    better: str
    """The cheapest rung with a higher level; "" where there is none."""
    cheaper: str
    """The best of those that cost much less, or else of those that cost less; "": none."""


def recommendation_group(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """Group ``/recommendation`` of one cell or of many.

    Args:
        trees: results of single cells, with ``/levels`` and ``/cost``.
        level: coverage of the intervals, and of the set that contains the best rung.

    Returns:
        None where a cell has no levels or no costs.
    """
    read = read_levels(trees)
    if read is None or not all("cost" in tree.children for tree in trees):
        return None
    if not all(TUNED in levels.protocols for levels in read):
        return None
    prices = [total_operations(tree) for tree in trees]
    every = [_candidates([one], [price], level) for one, price in zip(read, prices, strict=True)]
    whole = _candidates(read, prices, level)
    if whole is None or not whole.counted:
        return None
    losses = _rule_losses(read, whole.names)
    found = _recommend(whole, losses, level)
    data = _dataset(whole, level)
    regret, holds = _by_cell(every, found.rung, level)
    data["regret"] = (("cell", "ci_bound"), regret)
    data["holds"] = ("cell", holds)
    data.coords["cell"] = np.arange(len(read))
    pairwise = 1.0 - (1.0 - level) / max(1, len(whole.counted) - 1)
    more = _more_masks(read[0], found, pairwise) if len(read) == 1 else None
    lambdas = _damping(trees[0], found.rung) if len(trees) == 1 else None
    data.attrs = {
        "recommended": found.rung,
        "rule": found.rule,
        "resolved": int(found.resolved),
        "best": found.best,
        "better": found.better,
        "cheaper": found.cheaper,
        "sentence": _sentence(whole, losses, found, level, regret, holds, more, lambdas),
    }
    if more is not None:
        data.attrs["more_masks"] = more
    return data


def total_operations(tree: xr.DataTree) -> dict[str, float]:
    """Rung → operations of scoring all queries at one λ; NaN where they are not counted."""
    data, queries = tree["cost"].to_dataset(), int(tree["cells"].to_dataset()["queries"])
    times = xr.where(data["phase"] == "solve", queries, 1)
    total = (data["operations"] * times).sum("phase", skipna=False)
    return dict(zip(map(str, total["rung"].values), map(float, total.values), strict=True))


def can_be_best(level: Draws) -> Float[np.ndarray, " K"]:
    """P-value of each of K rungs being the best: the model confidence set holds those above α."""
    count = len(level.estimate)
    spread = (level.draws[:, None, :] - level.draws[:, :, None]).std(0)
    ahead = level.estimate[None, :] - level.estimate[:, None]
    spread = np.where(spread > 1e-9, spread, np.where(np.abs(ahead) > 1e-9, 1e-9, np.inf))
    t = ahead / spread
    centred = level.draws - level.draws.mean(0)
    p_value, reached, alive = np.ones(count), 0.0, list(range(count))
    while len(alive) > 1:
        among = np.ix_(alive, alive)
        noise = centred[:, alive]
        null = ((noise[:, None, :] - noise[:, :, None]) / spread[among]).max((1, 2))
        reached = max(reached, (1.0 + (null >= t[among].max()).sum()) / (1.0 + len(null)))
        worst = alive[int(t[among].max(1).argmax())]
        p_value[worst] = reached
        alive.remove(worst)
    return p_value


def _candidates(
    read: Sequence[Levels], prices: Sequence[Mapping[str, float]], level: float
) -> Candidates | None:
    """Rungs that every cell has levels of, with means over the cells."""
    nodes = [n for n in read[0].nodes if all(n in one.nodes for one in read)]
    mean = mean_over_cells([one.of(TUNED, nodes) for one in read])
    there = [i for i in range(len(nodes)) if np.isfinite(mean.estimate[i])]
    if not there:
        return None
    names, mean = tuple(nodes[i] for i in there), mean[np.array(there)]
    cost = np.array([[price.get(name, np.nan) for name in names] for price in prices])
    price = np.exp(np.log(cost).mean(0))
    among = np.flatnonzero(np.isfinite(price) | (np.array(names) == RANDOM))
    p_value = np.full(len(names), np.nan)
    p_value[among] = can_be_best(mean[among])
    return Candidates(names, mean, price, p_value)


def _rule_losses(read: Sequence[Levels], names: Sequence[str]) -> dict[str, Draws]:
    """Rule that needs no retraining → LDS (K,) that every rung loses by it, against its own λ."""
    rules = [protocol for protocol in shared_protocols(read) if protocol not in PROTOCOLS]
    tuned = mean_over_cells([one.of(TUNED, names) for one in read])
    return {
        rule: tuned.minus(mean_over_cells([one.of(rule, names) for one in read])) for rule in rules
    }


def _recommend(whole: Candidates, losses: Mapping[str, Draws], level: float) -> Recommendation:
    kept, best = whole.not_worse(level), whole.best
    if RANDOM in whole.names and whole.p_value[whole.names.index(RANDOM)] > 1.0 - level:
        return Recommendation("", "", False, best, "", "")
    least = min(whole.price(name) for name in kept)
    tied = [name for name in kept if whole.price(name) <= TIE * least]
    rung = max(reversed(tied), key=lambda name: float(whole.of(name).estimate))
    own, higher = whole.of(rung).estimate, whole.counted
    higher = [name for name in higher if whole.of(name).estimate > own]
    lower = [name for name in whole.frontier if TIE * whole.price(name) < whole.price(rung)]
    lower = [name for name in lower if MUCH * whole.price(name) < whole.price(rung)] or lower
    return Recommendation(
        rung,
        "" if rung in BASELINES else _rule(rung, whole.names, losses, level),
        set(kept) <= {rung} and best == rung,
        best,
        min(higher, key=whole.price, default=""),
        lower[-1] if lower else "",
    )


def _rule(rung: str, names: Sequence[str], losses: Mapping[str, Draws], level: float) -> str:
    """The first rule without retraining by which it is not resolved to lose."""
    place = names.index(rung)
    for rule, loss in losses.items():
        if np.isfinite(loss.estimate[place]) and loss[place].interval(level)[0] <= 0:
            return rule
    return TUNED


def _dataset(whole: Candidates, level: float) -> xr.Dataset:
    best = whole.of(whole.best)
    behind = np.stack([best.minus(whole.of(name)).interval(level) for name in whole.names])
    return xr.Dataset(
        {
            "level": (("rung", "ci_bound"), whole.level.interval(level)),
            "behind": (("rung", "ci_bound"), behind),
            "p_value": ("rung", whole.p_value),
            "cost": ("rung", whole.cost),
            "frontier": ("rung", [int(name in whole.frontier) for name in whole.names]),
        },
        {"rung": list(whole.names), "ci_bound": list(CI_BOUNDS)},
    )


def _by_cell(
    cells: Sequence[Candidates | None], rung: str, level: float
) -> tuple[Float[np.ndarray, "cells 3"], list[int]]:
    """Regret of a rung in every cell, and whether it is not resolved to be worse there."""
    regret, holds = np.full((len(cells), 3), np.nan), [0] * len(cells)
    for i, one in enumerate(cells):
        if one is not None and rung in one.names:
            regret[i] = one.behind(rung, one.best).interval(level)
            holds[i] = int(rung in one.not_worse(level))
    return regret, holds


def _more_masks(levels: Levels, found: Recommendation, level: float) -> int | None:
    """Masks to add until the best rung would be told apart from the recommended one.

    Args:
        levels: of the cell.
        found: the recommendation.
        level: of one comparison, so that as many as there are rungs keep the whole level.
    """
    if not found.rung or found.rung == found.best:
        return None
    pair = [found.best, found.rung]
    contrast = np.array([1.0, -1.0])
    lead = float(levels.of(TUNED, pair).combine(contrast[None]).estimate[0])
    parts = levels.parts(TUNED, pair).contrast(contrast)
    needed = masks_needed(lead, parts, levels.masks, level)
    return None if needed is None else max(1, needed - levels.masks)


def _damping(tree: xr.DataTree, rung: str) -> float | None:
    """The λ of a rung at its own best."""
    data = tree["levels"].to_dataset()
    if not rung or "damping" not in data:
        return None
    found = float(data["damping"].sel(protocol=TUNED, rung=rung))
    return found if np.isfinite(found) else None


def _sentence(
    whole: Candidates,
    losses: Mapping[str, Draws],
    found: Recommendation,
    level: float,
    regret: Float[np.ndarray, "cells 3"],
    holds: Sequence[int],
    more: int | None,
    damping: float | None,
) -> str:
    """The recommendation in plain words."""
    if not found.rung:
        return (
            "Which approximation to use is not resolved at this size: not even random scores are "
            "told apart from the best of them. More retrained models would tell."
        )

    parts = [_use(whole, losses, found, level, damping)]
    if found.rung != found.best:
        gap = _gap(whole, found.rung, found.best, level)
        lead = f"{capitalised(rung_name(found.best))} leads by {gap}"
        by = "" if more is None else f"; about {more:,} more masks would"
        parts.append(f"{lead}, which this size does not resolve{by}.")
    if found.better and found.better != found.best:
        parts.append(_next(found.better, found.rung, whole, level))
    elif found.better:
        ratio = whole.price(found.better) / whole.price(found.rung)
        parts.append(f"It takes {_times(ratio)} times the work.")
    if found.cheaper:
        rule = _rule(found.cheaper, whole.names, losses, level)
        told = "" if rule == TUNED else f" (no retraining: {damping_rules(rule)[rule].label})"
        parts.append(_next(found.cheaper, found.rung, whole, level, told))
    parts += _uncounted(whole, found.rung, level)
    if len(holds) > 1:
        parts.append(_over_cells(regret, holds))
    return " ".join(parts)


def _use(
    whole: Candidates,
    losses: Mapping[str, Draws],
    found: Recommendation,
    level: float,
    damping: float | None,
) -> str:
    """What to use, at which damping, and why."""
    if found.rung in BASELINES:
        return (
            "No curvature is resolved to help at this size: products of gradients alone (the "
            "identity) are not resolved to be worse than the best rung."
        )
    name = rung_name(found.rung)
    if found.rule in losses:
        loss = losses[found.rule][whole.names.index(found.rung)].interval(level)
        label = damping_rules(found.rule)[found.rule].label
        lost = f"against its best λ it loses {_span(loss)}" if loss.any() else "its best λ here"
        how = f"with {label}, which needs no retraining ({lost})"
    elif damping is None:
        how = "at its own best λ, chosen on retrained models"
    else:
        how = f"at λ = {damping:.2g}, chosen on retrained models"
    if found.resolved:
        why = "every other rung is resolved to be worse"
    elif found.rung == found.best:
        why = "it scores highest"
    else:
        why = "it is the cheapest that is not resolved to be worse than the best"
        if whole.price(found.rung) > min(map(whole.price, whole.not_worse(level))):
            why = (
                "of the cheapest that are not resolved to be worse than the best, within a factor "
                f"of {TIE:g}, it scores highest"
            )
    return f"Recommended: {name} {how}; {why}."


def _next(other: str, rung: str, whole: Candidates, level: float, told: str = "") -> str:
    """What the next better rung costs, or the best of the cheaper ones loses."""
    ratio, name = whole.price(other) / whole.price(rung), rung_name(other)
    if whole.of(other).estimate > whole.of(rung).estimate:
        gain = _gap(whole, rung, other, level)
        return f"The next better one, {name}, gains {gain} for {_times(ratio)} times the work."
    loss = _gap(whole, other, rung, level)
    return f"{capitalised(name)}{told} loses {loss}, and is {_times(1 / ratio)} times cheaper."


def _gap(whole: Candidates, rung: str, other: str, level: float) -> str:
    return _span(whole.behind(rung, other).interval(level))


def _uncounted(whole: Candidates, rung: str, level: float) -> list[str]:
    """Rungs of unknown cost that are resolved to be better."""
    found = []
    for name in whole.names:
        gap = whole.behind(rung, name).interval(level)
        if name not in (*whole.counted, RANDOM) and gap[0] > 0:
            who = capitalised(rung_name(name))
            found.append(f"{who} scores higher by {_span(gap)}, at a cost that is not counted.")
    return found


def _over_cells(regret: Float[np.ndarray, "cells 3"], holds: Sequence[int]) -> str:
    worst = regret[int(np.nanargmax(regret[:, 1]))]
    return (
        f"It is not resolved to be worse than the best one in {sum(holds)} of {len(holds)} cells; "
        f"the most that it loses in one is {_span(worst)}."
    )


def _span(interval: Float[np.ndarray, " 3"]) -> str:
    """An estimate with its bounds, to the digits that they allow."""
    width = float(interval[2] - interval[0])
    digits = min(MOST_DIGITS, max(2, -math.floor(math.log10(width)))) if width > 0 else MOST_DIGITS
    low, middle, high = (f"{value:.{digits}f}".replace("-", "−") for value in interval)
    return f"{middle} [{low}, {high}]"


def _times(ratio: float) -> str:
    """A ratio to two digits."""
    return f"{float(f'{ratio:.2g}'):,g}"
