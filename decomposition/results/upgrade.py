"""Results of schema 1, single ones and studies, as trees of the present schema.

Schema 1 named ``/large`` what is ``/forms``, gave a study a table of its own, ``/cells``, for
what a single result holds in ``/shares``, ``/attribution`` and ``/spectral_error``, and wrote no
version into a study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from decomposition.names import CROSS_TERM, STEPS
from decomposition.results.schema import CELL, CELL_COORDINATES, SCHEMA_VERSION

RENAMED = {"/large": "/forms", "/ladder": "/protocol_ladder"}
"""Path in schema 1 → path now."""
ABOUT_CELLS = ("train_loss", "query_loss", "query_accuracy", "parameters")
FROBENIUS, LDS = "frobenius_squared", "lds"


def version_of(attrs: Mapping[Any, Any]) -> object:
    """The schema that a root's attributes tell; 1 for a study without one; None for neither."""
    return attrs.get("schema_version", 1 if "study" in attrs else None)


def upgraded(tree: xr.DataTree) -> xr.DataTree:
    """The tree in the present schema; the same tree if it is in it already."""
    if version_of(tree.attrs) != 1:
        return tree
    old = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    groups = {RENAMED.get(path, path): data for path, data in old.items()}
    if "study" in tree.attrs and "/cells" in groups:
        groups |= _of_cells(groups["/cells"])
    found = xr.DataTree.from_dict({path: data for path, data in groups.items() if path != "/"})
    found.attrs = {**tree.attrs, "schema_version": SCHEMA_VERSION}
    return found


def _of_cells(cells: xr.Dataset) -> dict[str, xr.Dataset]:
    """The one table of a study, by groups."""
    of_cell = [n for n in cells.variables if n != CELL and cells[n].dims == (CELL,)]
    table = cells.drop_vars([n for n in of_cell if n in cells.coords])
    about = xr.Dataset(
        {n: (CELL, cells[n].values) for n in ABOUT_CELLS if n in of_cell},
        {n: (CELL, cells[n].values) for n in (CELL, *CELL_COORDINATES) if n in cells.variables},
    )
    attribution = table[[n for n in ("ceiling", "reliability") if n in table]]
    groups = {
        "/cells": about,
        "/shares": _shares(table),
        "/shares/shapley": _by_metric(table, ["shapley"]),
        "/shares/at_damping": _at_damping(table),
        "/spectral_error": _errors(table),
        "/attribution": attribution,
    }
    return {path: data for path, data in groups.items() if path == "/cells" or data.data_vars}


def _by_metric(table: xr.Dataset, names: list[str]) -> xr.Dataset:
    """Variables of the LDS with the dimension ``metric``, on the steps of ``/shares``."""
    found = table[[n for n in names if n in table]]
    if "step" in found.dims:
        found = found.reindex(step=[*STEPS, CROSS_TERM])
    if not found:
        return xr.Dataset()
    found = found.expand_dims(metric=[FROBENIUS, LDS]).where(_is_lds())
    return found.transpose(CELL, ...)


def _is_lds() -> xr.DataArray:
    return xr.DataArray([False, True], {"metric": [FROBENIUS, LDS]}, "metric")


def _shares(table: xr.Dataset) -> xr.Dataset:
    """Levels, and the shares of the LDS and of ‖H − K‖², of which only shares were kept."""
    data = _by_metric(table, ["drop", "share", "total"])
    data = data.merge(table[[n for n in ("level",) if n in table]])
    if "damping" in table:
        data["level_damping"] = table["damping"]
    if "share" in data and "frobenius_share" in table:
        exact = table["frobenius_share"].rename(frobenius_step="step").reindex(step=data["step"])
        data["share"] = data["share"].where(_is_lds(), exact)
        data["share"] = data["share"].transpose(CELL, "metric", "protocol", "step", "ci_bound")
    if "share" in data:
        known = data["share"].sel(ci_bound="estimate", drop=True).notnull().any("step")
        data["defined"] = known.astype("int8")
    return data


def _at_damping(table: xr.Dataset) -> xr.Dataset:
    data = xr.Dataset()
    if "level_at" in table:
        data["level"] = table["level_at"].rename(chain_rung="rung").reindex(rung=table["rung"])
    if "drop_at" in table:
        data["drop"] = table["drop_at"].reindex(step=[*STEPS, CROSS_TERM])
    return data


def _errors(table: xr.Dataset) -> xr.Dataset:
    data = xr.Dataset()
    if "frobenius_error" in table:
        data["value"] = table["frobenius_error"].expand_dims(metric=["relative_frobenius"], axis=1)
    if "inverse_error" in table:
        data["misaligned_solutions"] = table["inverse_error"]
    return data
