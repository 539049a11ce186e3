"""Beside the chain: approximations and scores made elsewhere, held against every rung."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import xarray as xr

from decomposition.report.content import Block, Cell, Figure, Table, Text
from decomposition.report.figures.bands import leading_protocol
from decomposition.report.figures.differences import plot_beside
from decomposition.report.names import protocol_label, rung_label
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.wording import joined, span


def beside_blocks(result: Result) -> list[Block]:
    """A figure of the differences to the chain's rungs, and tables of all of them."""
    difference = result.known("/beside", "difference")
    if difference is None:
        return []
    protocol, last = leading_protocol(result, difference), labels(difference, "rung")[-1]
    told = joined(
        [_against(difference, protocol, other, last) for other in labels(difference, "other")]
    )
    how = (
        "A probability is the share of resamples in which the difference is above zero. Scores "
        "made elsewhere know no λ: their LDS is the same under every protocol."
    )
    return [
        Text(f"{told[:1].upper()}{told[1:]}."),
        _figure(result, difference),
        Text(how),
        *_tables(result, difference),
    ]


def _figure(result: Result, difference: xr.DataArray) -> Figure:
    protocol = leading_protocol(result, difference)
    under = protocol_label(protocol)
    others, rungs = labels(difference, "other"), labels(difference, "rung")
    rows = tuple(
        (other, rung, interval(difference, protocol=protocol, other=other, rung=rung))
        for other in others
        for rung in rungs
    )
    finding = joined([_against(difference, protocol, other, rungs[-1]) for other in others])
    return Figure(
        "beside",
        f"LDS minus that of each rung, {under}: {finding}.",
        f"LDS minus that of each rung of the chain, {under}, paired, with {intervals(result)}: "
        "right of zero it ranks the retrained models' outputs better than that rung.",
        partial(plot_beside, result.tree, cell=result.cell),
        Table("beside-data", f"LDS minus the rung's, {under}", ("what", "rung", "LDS"), rows),
    )


def _against(difference: xr.DataArray, protocol: str, other: str, rung: str) -> str:
    value = interval(difference, protocol=protocol, other=other, rung=rung)
    name, against = rung_label(other, 60), rung_label(rung)
    if not value.known:
        return f"{name} was not scored"
    if value.lower > 0:
        return f"{name} lies above {against} by {span(value)}"
    if value.upper < 0:
        return f"{name} lies below {against}: {span(value)}"
    return f"{name} is not told apart from {against}: {span(value)}"


def _tables(result: Result, difference: xr.DataArray) -> list[Block]:
    """The differences under every protocol, and how probably each is above zero."""
    protocols = [p for p in result.protocols if p in labels(difference, "protocol")]
    columns = ("what", "minus", *map(protocol_label, protocols))

    def rows(cell: Callable[..., Cell]) -> tuple[tuple[Cell, ...], ...]:
        return tuple(
            (
                rung_label(other, 60),
                rung_label(rung),
                *(cell(protocol=p, other=other, rung=rung) for p in protocols),
            )
            for other in labels(difference, "other")
            for rung in labels(difference, "rung")
        )

    gaps = rows(partial(interval, difference))
    blocks: list[Block] = [Table("beside-all", "LDS minus that of each rung", columns, gaps)]
    probability = result.array("/beside", "probability")
    if probability is not None:
        chances = rows(lambda **place: float(probability.sel(place)))
        caption = "Probability of an LDS above that of each rung"
        blocks.append(Table("beside-probability", caption, columns, chances))
    return blocks
