"""LDS against damping: curves, the best value of each rung, agreement, and negative eigenvalues."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.names import BASELINES, CHAIN
from decomposition.report.content import Block, Cell, Columns, Figure, Table, Text
from decomposition.report.figures.curves import (
    GRIDS,
    most_negative,
    plot_lds_curves,
    plot_levels_at_damping,
    plot_policies,
)
from decomposition.report.interval import Interval
from decomposition.report.layout import layout
from decomposition.report.names import POLICIES, PROTOCOLS, rung_label
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.verdict import held_back
from decomposition.report.wording import fixed, joined, number, span


def damping_blocks(result: Result) -> list[Block]:
    """LDS over the grid of every protocol, every rung at its best λ, and the policies."""
    if result.array("/attribution", "lds_mean") is None:
        return _at_damping(result) or agreement_blocks(result)
    blocks: list[Block] = []
    for one in result.each() if result.few else ():
        name = f"{one.name}: " if one.name else ""
        blocks += [Text(name + said) for said in _finding(one)]
        blocks += [Text(name + said, kind="note") for said in _edges(one)]
    for protocol in GRIDS:
        name = f"lds-{protocol.replace('_', '-')}"
        summary = f"LDS against damping, {PROTOCOLS[protocol]}"
        blocks += figures(result, name, summary, partial(_figure, protocol))
    blocks.append(
        Text(
            "Of many lines those that know no λ are in the tables alone. "
            "A star marks a rung's best value; “edge” says that it lies at the end of the grid, so "
            "the true optimum may lie outside. Agreement is with the scores of the exact Hessian."
        )
    )
    agreement = result.array("/attribution", "agreement")
    metrics = labels(agreement, "agreement_metric") if agreement is not None else []
    names = {"spearman": "rank correlation with H", "top10_jaccard": "top 10 shared with H"}
    agree = [names.get(m, m) for m in metrics]
    columns = ("rung", "best LDS", "at λ", "on the grid", *agree)
    columns += ("agreement at λ",) if metrics else ()
    caption = "Every rung at its best λ; agreement at the nearest λ where it was measured"
    blocks += table(result, "best", caption, columns, _best)
    return [*blocks, *([] if result.many else _policies(result))]


def _finding(one: Result) -> list[str]:
    """Where the chain's rungs are best, and which is best there."""
    mean = one.known("/attribution", "lds_mean")
    best = {} if mean is None else _optima(one, mean, "damping")
    chain = {r: found for r, found in best.items() if r in CHAIN}
    if not chain:
        return ["LDS over a grid of dampings; a rung that wins at one λ can lose at another."]
    low, high = (pick(chain, key=lambda r: chain[r][1]) for pick in (min, max))
    top = max(chain, key=lambda r: chain[r][0].estimate)
    ratio = chain[high][1] / chain[low][1]
    spread = (
        f"The best λ differs by a factor of {number(ratio, 2)} along the chain, from "
        f"{number(chain[low][1], 2)} ({rung_label(low)}) to {number(chain[high][1], 2)} "
        f"({rung_label(high)})"
        if ratio > 1
        else f"Every rung of the chain is best at λ = {number(chain[low][1], 2)}"
    )
    return [f"{spread}; the highest LDS is that of {rung_label(top)}, {span(chain[top][0])}."]


def _edges(one: Result) -> list[str]:
    """Rungs whose optimum may lie outside the grid, unless the run has said so itself."""
    edge = one.array("/attribution", "edge")
    if edge is None or any("edge of the grid" in str(note) for note in one.json("notes")):
        return []
    unsolved = held_back(one)
    on_edge = [
        rung_label(r, 60)
        for r in labels(edge, "rung")
        if r not in (*BASELINES, *unsolved) and int(edge.sel(rung=r)) == 1
    ]
    if not on_edge:
        return []
    return [f"The best λ of {joined(on_edge)} lies on an edge of the grid: widen the grid."]


def _at_damping(result: Result) -> list[Block]:
    """Of many cells: the chain at one λ for all rungs, a figure per checkpoint."""
    level = result.known("/shares/at_damping", "level")
    if level is None or not result.many:
        return []
    rungs = [r for r in CHAIN if r in labels(level, "rung")]
    mean = level.sel(ci_bound="estimate").mean("cell")
    best = mean.idxmax("rung").dropna("multiplier")
    parts = [
        f"{rung_label(str(rung))} at {_range([float(m) for m, _ in run])}"
        for rung, run in (
            (rung, list(run))
            for rung, run in itertools.groupby(
                zip(best["multiplier"].values, best.values, strict=True), key=lambda pair: pair[1]
            )
        )
    ]
    said = (
        "With one λ for all rungs, the highest LDS in the mean over the cells is that of "
        f"{joined(parts)}, λ in units of tr G / min(P, N·C)."
    )
    shown = layout(result)
    drawn = tuple(
        Figure(
            f"lds-at-damping-{column}",
            f"LDS of {joined([rung_label(r) for r in rungs])} against one λ for all rungs, "
            f"{title or 'all cells'}.",
            "Thin lines are cells, thick ones their mean.",
            partial(plot_levels_at_damping, result.tree, column=column),
        )
        for column, title in enumerate(shown.columns)
    )
    return [Text(said), Columns(drawn)]


def _range(multipliers: list[float]) -> str:
    ends = [f"{m:.2g}" for m in (multipliers[0], multipliers[-1])]
    return ends[0] if len(multipliers) == 1 else " to ".join(ends)


def _figure(protocol: str, one: Result, figure: str) -> Figure | None:
    path, dim, _ = GRIDS[protocol]
    mean = one.known(path, "lds_mean")
    if mean is None:
        return None
    name, of = PROTOCOLS[protocol], f" in {one.name}" if one.name else ""
    best = _optima(one, mean, dim)
    parts = [f"{rung_label(r)} {fixed(v.estimate)} at {number(at)}" for r, (v, at) in best.items()]
    rows = tuple(
        (rung, float(value), interval(mean, **{"rung": rung, dim: value}))
        for rung in labels(mean, "rung")
        for value in mean[dim].values.tolist()
    )
    column = "λ" if dim == "damping" else "setting"
    return Figure(
        figure,
        f"LDS against damping under {name}{of}; best values: {joined(parts)}.",
        f"Mean LDS over the grid of {name}{of}; bands are {intervals(one)}, stars the best values.",
        partial(plot_lds_curves, one.tree, protocol=protocol, cell=one.cell),
        Table(f"{figure}-data", f"LDS, {name}", ("rung", column, "LDS"), rows),
    )


def _optima(one: Result, mean: xr.DataArray, dim: str) -> dict[str, tuple[Interval, float]]:
    found: dict[str, tuple[Interval, float]] = {}
    for rung in (r for r in one.rungs if r in labels(mean, "rung")):
        middle = mean.sel(rung=rung, ci_bound="estimate").values
        if np.isnan(middle).all():
            continue
        at = mean[dim].values[int(np.nanargmax(middle))]
        found[rung] = interval(mean, **{"rung": rung, dim: at}), float(at)
    return found


def _best(one: Result) -> Iterator[Row]:
    mean, edge = one.array("/attribution", "lds_mean"), one.array("/attribution", "edge")
    agreement = one.array("/attribution", "agreement")
    if mean is None:
        return
    for rung, (value, at) in _optima(one, mean, "damping").items():
        on_edge = edge is not None and int(edge.sel(rung=rung)) == 1
        place = "any λ" if rung in BASELINES else "edge" if on_edge else "inside"
        agree = [] if agreement is None else _agreement(agreement.sel(rung=rung), at)
        yield (rung_label(rung, 120), value, at, place, *agree)


def _agreement(agreement: xr.DataArray, at: float) -> list[Cell]:
    """Each metric at the measured λ nearest to ``at``, then that λ."""
    metrics = labels(agreement, "agreement_metric")
    known = agreement.dropna("damping")
    if not known.sizes["damping"]:
        return [None] * (len(metrics) + 1)
    grid = np.asarray(known["damping"].values, dtype=float)
    nearest = known.isel(damping=int(np.abs(np.log(grid / at)).argmin()))
    values: list[Cell] = [float(nearest.sel(agreement_metric=m)) for m in metrics]
    return [*values, float(nearest["damping"])]


def _policies(result: Result) -> list[Block]:
    """A curve per policy of the Hessian, and the table of all indefinite rungs."""
    data = result.group("/policies")
    if data is None or "level" not in data:
        return []
    rungs = labels(data["level"], "rung")
    blocks: list[Block] = [
        Text(
            "Rungs with negative eigenvalues μ need a rule for them before they are damped. Each "
            "policy is given its own best λ, cross-fitted. “signed” with λ below |λ_min| inverts "
            "an indefinite matrix; a level read there is flagged."
        )
    ]
    if "lds_by_damping" in data:
        blocks.append(_policy_figure(result, data, rungs[0]))
    columns = ("rung", "policy", "LDS at its best λ", "λ (mean over folds)", "|λ_min|", "matrix")
    caption = "Policies for negative eigenvalues"
    return [*blocks, *table(result, "policies", caption, columns, _policy_rows)]


def _policy_figure(result: Result, data: xr.Dataset, rung: str) -> Figure:
    levels = {
        p: interval(data["level"], policy=p, rung=rung) for p in labels(data["level"], "policy")
    }
    parts = [f"{policy} {span(value)}" for policy, value in levels.items() if value.known]
    edge = most_negative(result, rung)
    below = f" |λ_min| is {number(edge)}." if edge is not None else ""
    curve = data["lds_by_damping"].sel(rung=rung)
    rows = tuple(
        (policy, float(at), float(curve.sel(policy=policy, damping=at)))
        for policy in labels(curve, "policy")
        for at in curve["damping"].values.tolist()
    )
    return Figure(
        "policies",
        f"LDS of the {rung_label(rung)} against damping by policy; at its best λ: "
        f"{joined(parts)}.{below}",
        f"Estimates over the grid of λ, without bands; at its own best λ, {joined(parts)}.{below}",
        partial(plot_policies, result.tree, rung=rung),
        Table("policies-data", f"LDS of {rung} by policy", ("policy", "λ", "LDS"), rows),
    )


def _policy_rows(one: Result) -> Iterator[Row]:
    data = one.group("/policies")
    assert data is not None
    for rung in labels(data["level"], "rung"):
        for policy in labels(data["level"], "policy"):
            place = {"policy": policy, "rung": rung}
            value = interval(data["level"], **place)
            at = float(data["level_damping"].sel(place)) if "level_damping" in data else None
            flagged = "indefinite" in data and int(data["indefinite"].sel(place)) == 1
            reading = "indefinite: λ < |λ_min|" if flagged else "definite"
            if not value.known:
                reading = "no λ of the grid can be inverted"
            name = POLICIES.get(policy, policy)
            yield (rung_label(rung, 120), name, value, at, most_negative(one, rung), reading)


def agreement_blocks(result: Result) -> list[Block]:
    """A table of every metric, dampings down and rungs across; where no truth was at hand."""
    agreement, data = result.array("/attribution", "agreement"), result.group("/attribution")
    if agreement is None or data is None:
        return []
    rungs, names = labels(agreement, "rung"), {"spearman": "rank correlation"}
    names["top10_jaccard"] = "top 10 shared"
    reference = rung_label(str(data.attrs.get("agreement_with", "")), 120)
    blocks: list[Block] = [
        Text(
            "Agreement of each rung's scores with those of the best rung that could be solved "
            f"({reference}): what the cheaper curvature changes in the scores, not whether they "
            "predict retraining."
        )
    ]

    def rows(metric: str, one: Result) -> Iterator[Row]:
        found = one.array("/attribution", "agreement")
        assert found is not None
        for damping in found["damping"].values:
            here = found.sel(agreement_metric=metric, damping=damping)
            values = (float(here.sel(rung=r)) for r in rungs)
            yield (float(damping), *(value if np.isfinite(value) else None for value in values))

    for metric in labels(agreement, "agreement_metric"):
        caption = f"Agreement with the best rung: {names.get(metric, metric)}"
        columns = ("λ", *(rung_label(r, 120) for r in rungs))
        name = f"agreement-{metric}"
        blocks += table(result, name, caption, columns, partial(rows, metric))
    return blocks
