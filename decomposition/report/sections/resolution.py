"""How firmly the drops are resolved, and what more masks or repeats would buy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Figure, Table, Text
from decomposition.report.figures.curves import masks_at_hand, plot_resolution
from decomposition.report.names import (
    protocol_label,
    step_label,
)
from decomposition.report.result import Result, interval, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.wording import joined, number, plural

_SHOWN = (0.1, 0.5, 1.0, 2.0, 10.0)
"""Multiples of the masks at hand in the table."""
_APART = 1.5
"""Ratio of the recorded interval to the curve beyond which the curve is called optimistic."""


def resolution_blocks(result: Result) -> list[Block]:
    """Interval width against masks, extrapolation marked; against repeats where measured."""
    width = result.array("/shares/resolution", "width")
    if width is None:
        return []
    blocks: list[Block] = [Text(_finding(result, width)), Text(_HOW)]
    if result.few:
        blocks += figures(result, "resolution", "Width of the intervals", _figure)
    for one in result.each() if result.few else ():
        blocks += _doubt(one)
    at_hand = masks_at_hand(result)
    whole = at_hand or int(width["masks"].values[-1])
    amounts = list(dict.fromkeys(_near(width, factor * whole) for factor in _SHOWN))
    heads = (f"{plural(m, 'mask')}{' (extrapolated)' if m > whole else ''}" for m in amounts)
    caption = "Width of the interval of each step's drop, in LDS"
    rows = partial(_widths, amounts)
    blocks += table(result, "resolution", caption, ("step", "damping", *heads), rows)
    return [*blocks, *([] if result.many else _repeats(result))]


_HOW = (
    "More masks shrink the part of an interval that comes from the draw of the subsets; what comes "
    "from the queries (and base models) stays. A flat curve says that more masks buy nothing. "
    "Beyond the masks at hand the curve is extrapolated from the observed variance."
)


def _finding(result: Result, width: xr.DataArray) -> str:
    """The widest interval now, and with ten times as many masks."""
    at_hand, protocol = masks_at_hand(result), _protocol(result, width)
    here = width.sel(protocol=protocol)
    if result.many or at_hand is None or not here.notnull().any():
        return "What more masks would buy."
    now, then = (here.sel(masks=_near(width, m)) for m in (at_hand, 10 * at_hand))
    widest = labels(width, "chain_step")[int(np.nanargmax(now.values))]
    ends = [number(float(one.sel(chain_step=widest)), 2) for one in (now, then)]
    masks = [plural(_near(width, m), "mask") for m in (at_hand, 10 * at_hand)]
    return (
        f"With {masks[0]} the widest interval of a step is that of {step_label(widest)}, {ends[0]} "
        f"of LDS; {masks[1]} would make it {ends[1]}."
    )


def _widths(amounts: list[int], one: Result) -> Iterator[Row]:
    width = one.array("/shares/resolution", "width")
    assert width is not None
    for protocol in labels(width, "protocol"):
        for step in labels(width, "chain_step"):
            here = width.sel(protocol=protocol, chain_step=step)
            name = protocol_label(protocol)
            yield (step_label(step), name, *(float(here.sel(masks=m)) for m in amounts))


def _protocol(one: Result, width: xr.DataArray) -> str:
    known = labels(width, "protocol")
    return next((p for p in one.protocols if p in known), known[0])


def _near(width: xr.DataArray, masks: float) -> int:
    return int(width["masks"].values[int(np.abs(width["masks"].values - masks).argmin())])


def _doubt(result: Result) -> list[Block]:
    """Where the study's own intervals are wider than the curve says, the curve is optimistic."""
    width, at_hand = result.array("/shares/resolution", "width"), masks_at_hand(result)
    if width is None or at_hand is None:
        return []
    protocol = _protocol(result, width)
    drop = result.array("/shares", "drop")
    if drop is None or "lds" not in labels(drop, "metric"):
        return []
    wider = []
    for step in labels(width, "chain_step"):
        own = interval(drop, metric="lds", protocol=protocol, step=step)
        told = float(width.sel(protocol=protocol, chain_step=step, masks=_near(width, at_hand)))
        if told > 0 and own.upper - own.lower > _APART * told:
            ratio = number((own.upper - own.lower) / told, 2)
            wider.append(f"{step_label(step)} ({ratio} times)")
    if not wider:
        return []
    return [
        Text(
            "The curve is too narrow here: the study's own intervals are wider for "
            f"{joined(wider)}. It is drawn for many base models or queries, and the study's "
            "intervals allow for few; read its slope, not its height.",
            kind="note",
        )
    ]


def _figure(result: Result, name: str) -> Figure | None:
    width, at_hand = result.known("/shares/resolution", "width"), masks_at_hand(result)
    if width is None:
        return None
    protocol = _protocol(result, width)
    under = protocol_label(protocol)
    ends = [int(width["masks"].values[-1])] if at_hand is None else [at_hand, 10 * at_hand]
    places = list(dict.fromkeys(_near(width, m) for m in ends))
    parts = [
        f"{step_label(step)} "
        + " to ".join(
            number(float(width.sel(protocol=protocol, chain_step=step, masks=m)), 2) for m in places
        )
        for step in labels(width, "chain_step")
    ]
    span = " to ".join(plural(m, "mask") for m in places)
    rows = tuple(
        (step, int(m), float(width.sel(protocol=protocol, chain_step=step, masks=m)))
        for step in labels(width, "chain_step")
        for m in width["masks"].values.tolist()
    )
    return Figure(
        name,
        f"Width of the interval of each step's drop under {under}, from {span}: {joined(parts)}.",
        "Rings: the run's own intervals, at the masks at hand; dotted: extrapolated.",
        partial(plot_resolution, result.tree, protocol=protocol, cell=result.cell),
        Table(f"{name}-data", "Interval widths", ("step", "masks", "width"), rows),
    )


def _repeats(result: Result) -> list[Block]:
    relative = result.array("/shares/resolution", "relative_width")
    outputs = result.array("/bank", "outputs")
    if relative is None or relative.sizes["repeats"] < 2:
        return []
    at_hand = outputs.sizes["repeat"] if outputs is not None else 0
    rows = tuple(
        (int(r), float(relative.sel(repeats=r)), "extrapolated" if r > at_hand else "measured")
        for r in relative["repeats"].values.tolist()
    )
    columns = ("repeats", "width / LDS", "how")
    caption = "Width of the interval of the Hessian's LDS, relative to it, against repeats"
    return [Table("repeats", caption, columns, rows)]
