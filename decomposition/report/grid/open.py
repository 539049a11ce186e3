"""Read a study's tree, or say exactly why the file is not one."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from decomposition.errors import ResultFileError
from decomposition.results.read import load_tree
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
    return tree


def _read(path: Path) -> xr.DataTree:
    if not path.exists():
        raise ResultFileError(f"no study at {path}; run one of the analyses/ with --out there")
    return load_tree(
        path,
        "it is damaged or something else: run the study's command again, which redoes only what "
        "is missing",
    )
