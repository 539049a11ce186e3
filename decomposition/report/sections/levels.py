"""LDS of each rung under every protocol: as read, corrected for noise, and by base model."""

from __future__ import annotations

import numpy as np
import xarray as xr

from decomposition.report.content import Block, Cell, Table, Text
from decomposition.report.palette import rung_label
from decomposition.report.study import (
    PROTOCOLS,
    STEP_LABELS,
    Study,
    interval,
    labels,
)
from decomposition.report.wording import span
from decomposition.results.schema import BASELINES, CHAIN, STEPS


def level_tables(study: Study) -> list[Block]:
    """The levels behind the waterfall, and what stands beside them in the result."""
    level = study.array("/shares", "level")
    assert level is not None
    return [_levels(study, level), *_corrected(study), *_base_models(study)]


def _rows(array: xr.DataArray) -> list[str]:
    """The chain in order, then every other rung that has a known value."""
    rungs = labels(array, "rung")
    ordered = [r for r in CHAIN if r in rungs] + [r for r in rungs if r not in CHAIN]
    return [r for r in ordered if np.isfinite(array.sel(rung=r).values).any()]


def _under(protocol: str) -> str:
    return PROTOCOLS.get(protocol, protocol)


def _levels(study: Study, level: xr.DataArray) -> Table:
    damping = study.array("/shares", "level_damping")
    known = labels(level, "protocol")
    rows: list[tuple[Cell, ...]] = []
    for rung in _rows(level):
        row: list[Cell] = [rung_label(rung, 120), _reached_by(rung)]
        for protocol in known:
            row.append(interval(level, protocol=protocol, rung=rung))
            if damping is not None:
                at = float(damping.sel(protocol=protocol, rung=rung))
                row.append("any" if rung in BASELINES else at)
        rows.append(tuple(row))
    columns = ["rung", "reached by"]
    for protocol in known:
        columns.append(f"LDS, {_under(protocol)}")
        if damping is not None:
            columns.append(f"at λ, {_under(protocol)}")
    caption = "LDS of each rung and the damping at which it is read"
    return Table("levels", caption, tuple(columns), tuple(rows))


def _corrected(study: Study) -> list[Block]:
    corrected, ceiling = (
        study.array("/shares", "corrected"),
        study.array("/attribution", "ceiling"),
    )
    if corrected is None or not _rows(corrected):
        return []
    known = labels(corrected, "protocol")
    rows = tuple(
        (
            rung_label(rung, 120),
            *(interval(corrected, protocol=p, rung=rung) for p in known),
        )
        for rung in _rows(corrected)
    )
    by = f" ({span(interval(ceiling))})" if ceiling is not None else ""
    text = (
        f"The LDS over the noise ceiling{by} is what a rung would reach against truth without "
        "training noise. The ceiling's own uncertainty is part of these intervals. Drops "
        "and shares are taken from the raw LDS."
    )
    columns = ("rung", *map(_under, known))
    table = Table("corrected", "LDS corrected for attenuation: LDS / ceiling", columns, rows)
    return [Text(text), table]


def _base_models(study: Study) -> list[Block]:
    level = study.array("/base_models", "level")
    if level is None:
        return []
    rows: list[tuple[Cell, ...]] = []
    models = level["base_model"].values.tolist()
    for protocol in labels(level, "protocol"):
        here = level.sel(protocol=protocol)
        for rung in _rows(here):
            values = (float(here.sel(base_model=m, rung=rung)) for m in models)
            rows.append((rung_label(rung, 120), _under(protocol), *values))
    text = (
        f"{len(models)} base models were decomposed, each trained and retrained on its own; the "
        "levels and shares are over all of them, and their intervals include the difference "
        "between base models. With so few of them that part is known poorly, which widens the "
        "intervals."
    )
    columns = ("rung", "damping", *(f"base model {m}" for m in models))
    caption = "LDS of each base model alone (estimates; no interval of its own)"
    return [Text(text), Table("base-models", caption, columns, tuple(rows))]


def _reached_by(rung: str) -> str:
    if rung == CHAIN[0]:
        return "reference"
    if rung not in CHAIN:
        return "beside the chain"
    step = STEPS[CHAIN.index(rung) - 1]
    return STEP_LABELS[step]
