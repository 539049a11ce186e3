"""Queries by what they lose at each step, with the study's own intervals."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Table, missing
from decomposition.report.figures.queries import plot_queries
from decomposition.report.study import STEP_LABELS, Study, interval, labels
from decomposition.report.wording import joined

ROWS = 10
"""Queries in the table of those that change most."""


def queries(study: Study) -> list[Block]:
    """Every query's drop at every step, and those that change most."""
    data = study.group("/where/queries")
    if data is None or "drop" not in data:
        return [missing("LDS by query with intervals is not in this result.")]
    return [_figure(study, data), _table(study, data["drop"])]


def worst_first(study: Study) -> list[object]:
    """Queries by what the whole chain costs them, worst first; as the result has them if unknown.

    The steps' drops of one query add up to its change from the first rung to the last.
    """
    drop = study.array("/where/queries", "drop")
    if drop is None:
        shown = study.array("/top", "top_train")
        return [] if shown is None else shown["query"].values.tolist()
    total = drop.sel(ci_bound="estimate").sum("step").values
    return drop["query"].values[np.argsort(-total, kind="stable")].tolist()


def _figure(study: Study, data: xr.Dataset) -> Figure:
    drop = data["drop"]
    steps = labels(drop, "step")
    parts = [
        f"{STEP_LABELS.get(s, s)} {_percent(data, 'degraded', s)} lose, "
        f"{_percent(data, 'improved', s)} gain"
        for s in steps
    ]
    finding = f"Queries whose own interval excludes zero: {'; '.join(parts)}."
    rows = tuple(
        (step, str(query), interval(drop, step=step, query=query))
        for step in steps
        for query in drop["query"].values.tolist()
    )
    return Figure(
        "queries",
        f"LDS lost by each query at each step. {finding}",
        f"A point per query, protocol tuned; pale where the query's own interval holds zero. "
        f"{finding} Intervals miss their truth now and then by design, so a few per cent either "
        "way are no finding.",
        partial(plot_queries, study.tree),
        Table("queries", "LDS lost by query", ("step", "query", "drop"), rows),
    )


def _percent(data: xr.Dataset, name: str, step: str) -> str:
    if name not in data:
        return "–"
    return f"{100 * float(data[name].sel(step=step)):.0f}%"


def _table(study: Study, drop: xr.DataArray) -> Table:
    targets = study.array("/examples", "query_targets")
    steps = labels(drop, "step")
    order = worst_first(study)
    picked = order if len(order) <= 2 * ROWS else [*order[:ROWS], *order[-ROWS:]]
    rows: list[tuple[Cell, ...]] = []
    for query in picked:
        label = "–"
        if targets is not None and query in targets["query"].values:
            label = str(targets.sel(query=query).item())
        total = float(drop.sel(query=query, ci_bound="estimate").sum())
        cells = (interval(drop, step=s, query=query) for s in steps)
        rows.append((str(query), label, *cells, total))
    columns = ("query", "label", *(STEP_LABELS.get(s, s) for s in steps), "sum of the estimates")
    half = joined([f"the {ROWS} queries that lose most", f"the {ROWS} that lose least"])
    caption = f"LDS lost at each step: {half if picked is not order else 'every query'}"
    return Table("worst-queries", caption, columns, tuple(rows))
