"""Read a study's tree, or say exactly why the file is not one."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from decomposition.errors import ResultFileError
from decomposition.results.read import load_tree
from decomposition.results.schema import CHAIN, STEPS
from decomposition.results.validate import attribute_types
from decomposition.results.write import STUDY_NAME


def open_study(tree_or_path: xr.DataTree | str | os.PathLike[str]) -> xr.DataTree:
    """A study's tree as it is, or read from the file, or from the folder that holds ``study.nc``.

    Raises:
        ResultFileError: the file is missing, damaged, or no study; the message says which.
    """
    if isinstance(tree_or_path, xr.DataTree):
        tree, where = tree_or_path, "the tree"
    else:
        path = Path(tree_or_path)
        path = path / STUDY_NAME if path.is_dir() else path
        tree, where = _read(path), str(path)
    if "study" not in tree.attrs:
        raise ResultFileError(
            f"{where} is not a study (no attribute `study`); give the {STUDY_NAME} of a study, or "
            "read a single result with `decompose report`"
        )
    problems = attribute_types(tree)
    if problems:
        raise ResultFileError(f"{where} cannot be shown: " + "; ".join(problems))
    return _by_one_table(tree) if "shares" in tree.children else tree


def _by_one_table(tree: xr.DataTree) -> xr.DataTree:
    """A study of schema 2 with the one table of cells that these pages read."""
    groups = {node.path: node.to_dataset() for node in tree.subtree}
    shares, errors = groups["/shares"], groups["/spectral_error"]
    lds = shares.sel(metric="lds", step=list(STEPS), drop=True)
    names = [n for n in ("level", "drop", "share", "total") if n in lds]
    table = lds[names].assign_coords(groups["/cells"].coords).merge(groups["/cells"])
    if "level_damping" in shares:
        table["damping"] = shares["level_damping"]
    if "/shares/shapley" in groups:
        shapley = groups["/shares/shapley"]["shapley"]
        table["shapley"] = shapley.sel(metric="lds", step=list(STEPS), drop=True)
    if "/shares/at_damping" in groups:
        at = groups["/shares/at_damping"].sel(rung=list(CHAIN), step=list(STEPS))
        table["level_at"] = at["level"].rename(rung="chain_rung")
        table["drop_at"] = at["drop"]
    exact = shares["share"].sel(metric="frobenius_squared", ci_bound="estimate", drop=True)
    table["frobenius_share"] = exact.isel(protocol=0, drop=True).rename(step="frobenius_step")
    if "value" in errors:
        table["frobenius_error"] = errors["value"].sel(metric="relative_frobenius", drop=True)
    if "misaligned_solutions" in errors:
        table["inverse_error"] = errors["misaligned_solutions"]
    for name in ("ceiling", "reliability"):
        if name in groups.get("/attribution", ()):
            table[name] = groups["/attribution"][name]
    kept = {path: groups[path] for path in ("/claims", "/trends") if path in groups}
    if "/protocol_ladder" in groups:
        kept["/ladder"] = groups["/protocol_ladder"]
    found = xr.DataTree.from_dict({"/cells": table, **kept})
    found.attrs = tree.attrs
    return found


def _read(path: Path) -> xr.DataTree:
    if not path.exists():
        raise ResultFileError(f"no study at {path}; run one of the analyses/ with --out there")
    return load_tree(
        path,
        "it is damaged or something else: run the study's command again, which redoes only what "
        "is missing",
    )
