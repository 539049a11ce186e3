"""Section 4: LDS against damping, the best value of each rung, agreement with the reference."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Section, Table, Text, missing
from decomposition.report.figures.lds_curves import plot_lds_curves
from decomposition.report.palette import rung_label
from decomposition.report.sections.policies import policies
from decomposition.report.study import PROTOCOLS, Interval, Study, interval, intervals, labels
from decomposition.report.wording import fixed, joined, number
from decomposition.results.schema import BASELINES

_PLACES = {
    "equal": ("/attribution", "damping"),
    "relative": ("/attribution/relative", "setting"),
    "effective_dimension": ("/attribution/effective_dimension", "setting"),
}


def damping(study: Study) -> Section:
    """A figure per protocol, then one table of every rung at its best λ."""
    title = "LDS against damping"
    if study.array("/attribution", "lds_mean") is None:
        text = "No models were retrained in this study, so no rung has an LDS."
        return Section("damping", title, (missing(text),))
    blocks: list[Block] = [
        Text(
            "Damping is a treatment: a rung that wins at one λ can lose at another. A star marks "
            "a rung's best value; “edge” says that the best lies at the end of the grid, so the "
            "true optimum may lie outside."
        )
    ]
    for protocol, (path, dim) in _PLACES.items():
        mean = study.array(path, "lds_mean")
        if mean is not None:
            blocks.append(_figure(study, protocol, mean, dim))
    blocks += [_best(study), *policies(study)]
    return Section("damping", title, tuple(blocks))


def _figure(study: Study, protocol: str, mean: xr.DataArray, dim: str) -> Figure:
    name = PROTOCOLS[protocol]
    best = _optima(study, mean, dim)
    parts = [f"{rung_label(r)} {fixed(v.estimate)} at {number(at)}" for r, (v, at) in best.items()]
    rows: list[tuple[Cell, ...]] = []
    for rung in labels(mean, "rung"):
        for value in mean[dim].values.tolist():
            rows.append((rung, float(value), interval(mean, **{"rung": rung, dim: value})))
    column = "λ" if dim == "damping" else "setting"
    return Figure(
        f"lds-{protocol.replace('_', '-')}",
        f"LDS against damping under {name}; best values: {joined(parts)}.",
        f"Mean LDS over the grid of {name}; bands are {intervals(study)}, stars the best values.",
        partial(plot_lds_curves, study.tree, protocol=protocol),
        Table(f"lds-{protocol}", f"LDS, {name}", ("rung", column, "LDS"), tuple(rows)),
    )


def _optima(study: Study, mean: xr.DataArray, dim: str) -> dict[str, tuple[Interval, float]]:
    found: dict[str, tuple[Interval, float]] = {}
    for rung in (r for r in study.rungs if r in labels(mean, "rung")):
        middle = mean.sel(rung=rung, ci_bound="estimate").values
        if np.isnan(middle).all():
            continue
        at = mean[dim].values[int(np.nanargmax(middle))]
        found[rung] = interval(mean, **{"rung": rung, dim: at}), float(at)
    return found


def _best(study: Study) -> Table:
    mean = study.array("/attribution", "lds_mean")
    assert mean is not None
    edge = study.array("/attribution", "edge")
    agreement = study.array("/attribution", "agreement")
    metrics = labels(agreement, "agreement_metric") if agreement is not None else []
    rows: list[tuple[Cell, ...]] = []
    for rung, (value, at) in _optima(study, mean, "damping").items():
        row: list[Cell] = [rung_label(rung, 120), value, at]
        on_edge = edge is not None and int(edge.sel(rung=rung)) == 1
        row.append("any λ" if rung in BASELINES else "edge" if on_edge else "inside")
        if agreement is not None:
            row += _agreement(agreement.sel(rung=rung), metrics, at)
        rows.append(tuple(row))
    names = {"spearman": "Spearman", "top10_jaccard": "top-10 Jaccard"}
    agree = [f"{names.get(m, m)} with the reference" for m in metrics]
    at_which = ("agreement at λ",) if metrics else ()
    columns = ("rung", "best LDS", "at λ", "on the grid", *agree, *at_which)
    caption = "Every rung at its best λ; agreement at the nearest λ where it was measured"
    return Table("best", caption, columns, tuple(rows))


def _agreement(agreement: xr.DataArray, metrics: list[str], at: float) -> list[Cell]:
    """Each metric at the measured λ nearest to ``at``, then that λ."""
    known = agreement.dropna("damping")
    if not known.sizes["damping"]:
        return [None] * (len(metrics) + 1)
    grid = np.asarray(known["damping"].values, dtype=float)
    nearest = known.isel(damping=int(np.abs(np.log(grid / at)).argmin()))
    values: list[Cell] = [float(nearest.sel(agreement_metric=m)) for m in metrics]
    return [*values, float(nearest["damping"])]
