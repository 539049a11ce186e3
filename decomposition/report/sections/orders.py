"""Shares along every order: the glance over all protocols, Shapley values, marginals."""

from __future__ import annotations

import itertools
import math
from functools import partial

import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Table, missing
from decomposition.report.figures.orders import plot_orders
from decomposition.report.orders import order_key, order_names, readings, survival
from decomposition.report.palette import rung_label
from decomposition.report.study import (
    PROTOCOLS,
    SHARE_METRICS,
    STEP_LABELS,
    Interval,
    Study,
    interval,
    labels,
)
from decomposition.report.wording import percent
from decomposition.results.schema import STEPS


def glance(study: Study) -> list[Block]:
    """One picture of every protocol and order of the LDS shares; none where there is no order."""
    found = readings(study)
    if not found:
        return []
    rows: list[tuple[Cell, ...]] = [
        (r.protocol, r.order, step, drop, r.shares.get(step) if r.defined else None)
        for r in found
        for step, drop in r.drops.items()
    ]
    return [
        Figure(
            "orders",
            f"Shares of the LDS under every damping protocol and order. {survival(study)}",
            f"{survival(study)} Colour: the drop (orange a loss, purple a gain), comparable over "
            "all rows; number: the share, or the drop where shares are undefined; mean: over "
            "the orders (Shapley value); outlined: the largest estimate of the row, which need "
            f"not be resolved (intervals are in the tables). {order_key(study).capitalize()}.",
            partial(plot_orders, study.tree),
            Table(
                "orders-data",
                "Every protocol and order",
                ("protocol", "order", "step", "drop", "share"),
                tuple(rows),
            ),
        )
    ]


def marginals(study: Study) -> list[Block]:
    """Tables: Shapley value with its spread, every order, first and last, interactions."""
    shapley = study.group("/shares/shapley")
    if shapley is None:
        return [missing("Shares along other feasible orders, and their mean, are not here.")]
    blocks: list[Block] = []
    if "shapley" in shapley:
        blocks.append(_shapley(shapley))
    orders = study.group("/shares/orders")
    if orders is not None:
        blocks += _by_order(study, orders)
        if {"first", "last"} <= set(orders.data_vars):
            blocks.append(_first_last(orders))
    interactions = study.array("/shares/interactions", "interaction")
    if interactions is not None:
        blocks.append(_interactions(interactions))
    return blocks


def _shapley(data: xr.Dataset) -> Table:
    drop, spread = (data.get(name) for name in ("shapley_drop", "spread"))
    rows: list[tuple[Cell, ...]] = []
    for place in _places(data["shapley"], ("metric", "protocol", "step")):
        share = interval(data["shapley"], **place)
        lost = interval(drop, **place) if drop is not None else share
        if not (share.known or lost.known):
            continue
        width = float(spread.sel(place)) if spread is not None else float("nan")
        # a table of drops and shares: shares are told in per cent here, not by the table
        rows.append((*_told(place), lost, _percent_points(share), _points(width)))
    columns = ("metric", "damping", "step", "drop", "share", "spread of the share over orders")
    caption = "Each step's mean over the feasible orders (Shapley value)"
    return Table("shapley", caption, columns, tuple(rows))


def _percent_points(share: Interval) -> Cell:
    return percent(share) if share.known else "undefined"


def _points(width: float) -> str:
    return f"{100 * width:.0f} points" if math.isfinite(width) else "–"


def _by_order(study: Study, data: xr.Dataset) -> list[Block]:
    names = order_names(study)
    rows: list[tuple[Cell, ...]] = []
    if "share_by_order" not in data:
        return []
    for place in _places(data["share_by_order"], ("metric", "protocol", "order")):
        cells = [
            interval(data["share_by_order"], **place, step=s)
            for s in STEPS
            if s in labels(data["share_by_order"], "step")
        ]
        if any(cell.known for cell in cells):
            told = _told({k: v for k, v in place.items() if k != "order"})
            rows.append((*told, names.get(place["order"], place["order"]), *cells))
    if not rows:
        return []
    steps = [s for s in STEPS if s in labels(data["share_by_order"], "step")]
    columns = ("metric", "damping", "order", *(STEP_LABELS[s] for s in steps))
    caption = "Share of each step along each feasible order"
    return [Table("orders", caption, columns, tuple(rows), shares=True)]


def _first_last(data: xr.Dataset) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for place in _places(data["first"], ("metric", "protocol", "step")):
        first, last = (interval(data[name], **place) for name in ("first", "last"))
        if first.known or last.known:
            rows.append((*_told(place), first, last))
    columns = ("metric", "damping", "step", "drop, taken first", "drop, taken last")
    caption = "Each step taken as early and as late as it can be"
    return Table("first-last", caption, columns, tuple(rows))


def _interactions(array: xr.DataArray) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for protocol, pair in itertools.product(labels(array, "protocol"), labels(array, "pair")):
        value = interval(array, protocol=protocol, pair=pair)
        if value.known:
            rows.append((_pair(pair), PROTOCOLS.get(protocol, protocol), value, _zero(value)))
    columns = ("steps", "damping", "interaction (LDS)", "reading")
    caption = "How much more a step costs once another has been taken"
    return Table("interactions", caption, columns, tuple(rows))


def _pair(name: str) -> str:
    step, _, rest = name.partition(" after ")
    other, _, node = rest.partition(", at ")
    if not node:
        return name
    told = f"{STEP_LABELS.get(step, step)} after {STEP_LABELS.get(other, other)}"
    return f"{told}, from {rung_label(node)}"


def _zero(value: Interval) -> str:
    if value.lower > 0:
        return "costs more"
    return "costs less" if value.upper < 0 else "not resolved"


def _places(array: xr.DataArray, dims: tuple[str, ...]) -> list[dict[str, str]]:
    values = itertools.product(*(labels(array, dim) for dim in dims))
    return [dict(zip(dims, value, strict=True)) for value in values]


def _told(place: dict[str, str]) -> tuple[str, ...]:
    words = SHARE_METRICS | PROTOCOLS | STEP_LABELS
    return tuple(words.get(value, value) for value in place.values())
