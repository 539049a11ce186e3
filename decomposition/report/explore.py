"""The numbers behind the first two figures, for the page's script: protocol, order, λ and query."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from decomposition.names import LATTICE, STEPS
from decomposition.report.names import protocol_label, rung_label, step_label
from decomposition.report.palette import step_style
from decomposition.report.result import Result, interval, labels
from decomposition.report.wording import isolated
from decomposition.shares.lattice import NODES

DIGITS = 3
"""Decimals of the numbers that travel with the page."""


def explore(result: Result) -> str:
    """JSON of what the reader may choose from; "" where there is nothing to choose.

    ``protocols`` hold levels by rung and drops by order, ``at`` the levels over ``grid`` (one λ for
    all rungs), ``lds`` the thousandths of every query's LDS there, λ by λ; ``best`` is the place
    of each rung's best λ.
    """
    level, mean = result.known("/shares", "level"), result.known("/attribution", "lds_mean")
    if result.many or level is None or mean is None:
        return ""
    rungs = [r for r in LATTICE if r in labels(level, "rung") and r in labels(mean, "rung")]
    orders = _orders(result, rungs)
    if not orders:
        return ""
    grid = mean["damping"].values.astype(float)
    found = {
        "steps": {s: [step_label(s), step_style(s).color] for s in STEPS},
        "rungs": {r: rung_label(r) for r in rungs},
        "orders": [{"steps": steps, "nodes": nodes} for _, steps, nodes in orders],
        "protocols": [_protocol(result, level, p, rungs, orders) for p in result.protocols],
        "grid": [float(f"{value:.3g}") for value in grid],
        "at": {r: [_rounded(interval(mean, rung=r, damping=at)) for at in grid] for r in rungs},
        **_queries(result, rungs),
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _orders(result: Result, rungs: list[str]) -> list[tuple[str, list[str], list[str]]]:
    """(name in the result, steps, rungs on the way) of every order whose rungs are all there."""
    drop = result.array("/shares/orders", "drop_by_order")
    names = [" > ".join(STEPS)] if drop is None else labels(drop, "order")
    by_taken = {node.taken: name for name, node in NODES.items()}
    found = []
    for name in names:
        steps = [step.strip() for step in name.split(">")]
        nodes = [by_taken.get(frozenset(steps[:n]), "") for n in range(len(steps) + 1)]
        if set(nodes) <= set(rungs):
            found.append((name, steps, nodes))
    return found


def _protocol(
    result: Result,
    level: xr.DataArray,
    protocol: str,
    rungs: list[str],
    orders: list[tuple[str, list[str], list[str]]],
) -> dict[str, object]:
    drop = result.array("/shares/orders", "drop_by_order")
    drops = []
    if drop is not None and protocol in labels(drop, "protocol"):
        place = {"metric": "lds", "protocol": protocol}
        drops = [
            [_rounded(interval(drop, **place, order=name, step=s)) for s in steps]
            for name, steps, _ in orders
        ]
    return {
        "key": protocol,
        "label": protocol_label(protocol),
        "levels": {r: _rounded(interval(level, protocol=protocol, rung=r)) for r in rungs},
        "drops": drops,
    }


def _queries(result: Result, rungs: list[str]) -> dict[str, object]:
    """Every query's LDS over the grid, where the result holds it."""
    lds, best = result.known("/attribution", "lds"), result.array("/attribution", "best_damping")
    if lds is None or best is None or "query" not in lds.dims:
        return {"queries": [], "lds": {}, "best": {}}
    targets = result.array("/examples", "query_targets")
    known = (
        {} if targets is None else dict(zip(targets["query"].values, targets.values, strict=True))
    )
    names = [
        f"query {query}, label {isolated(known[query], 20)}" if query in known else f"query {query}"
        for query in lds["query"].values
    ]
    grid = lds["damping"].values.astype(float)
    values = {r: lds.sel(rung=r).transpose("damping", "query").values for r in rungs}
    return {
        "queries": names,
        "lds": {
            r: [[None if np.isnan(v) else round(1000 * float(v)) for v in row] for row in rows]
            for r, rows in values.items()
        },
        "best": {
            r: int(np.abs(np.log(grid / float(best.sel(rung=r)))).argmin())
            for r in rungs
            if float(best.sel(rung=r)) > 0
        },
    }


def _rounded(value: object) -> list[float | None]:
    bounds = (getattr(value, name) for name in ("lower", "estimate", "upper"))
    return [round(bound, DIGITS) if np.isfinite(bound) else None for bound in bounds]
