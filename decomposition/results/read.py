"""Read a result, or say exactly why the file is not one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from decomposition.array_files import (
    AbsentFileError,
    ArrayFileError,
    check_file,
    open_tree,
    reason_of,
)
from decomposition.errors import ResultFileError
from decomposition.results.digest import check_digest
from decomposition.results.schema import SCHEMA_VERSION
from decomposition.results.upgrade import upgraded, version_of
from decomposition.results.validate import check_tree
from decomposition.results.write import RESULT_NAME, STUDY_NAME

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_result(path: str | os.PathLike[str]) -> xr.DataTree:
    """The result at ``path``, of one cell or of many, in memory.

    A result of schema 1 is read as one of the present schema.

    Args:
        path: the file, or the folder that holds ``result.nc`` or ``study.nc``.

    Raises:
        ResultFileError: the file is missing, truncated, not a result of this package, of a newer
            schema, or of an older one that cannot be read any more; the message says which, and
            what to do.
    """
    path = Path(path)
    if path.is_dir():
        study = path / STUDY_NAME
        path = study if study.is_file() else path / RESULT_NAME
    _check_signature(path)
    tree = load_tree(
        path,
        "it is truncated or damaged: run the command that made it again",
        lambda attrs: _check_version(path, version_of(attrs), attrs.get("command")),
    )
    tree = upgraded(tree)
    check_tree(tree, str(path), strict=False)
    return tree


def load_tree(
    path: Path,
    otherwise: str,
    check: Callable[[Mapping[Any, Any]], None] = lambda attrs: None,
) -> xr.DataTree:
    """The netCDF-4 file at ``path``, in memory.

    Args:
        path: the file.
        otherwise: what an unreadable file may be, and the way out.
        check: raises ResultFileError for attributes of the root that are not to be read further.

    Raises:
        ResultFileError: the file cannot be read, or ``check`` raises it.
    """
    try:
        with open_tree(path) as opened:
            check(opened.attrs)
            tree = opened.load()
    except ResultFileError:
        raise
    except Exception as error:
        # HDF5, h5netcdf and xarray raise a dozen types between them for a damaged file
        raise ResultFileError(
            f"{path} cannot be read as a netCDF-4 file ({reason_of(error)}); {otherwise}"
        ) from error
    try:
        check_digest(tree)
    except ResultFileError as error:
        raise ResultFileError(f"{path} is damaged: {error}; else {otherwise}") from None
    return tree


def _check_signature(path: Path) -> None:
    try:
        check_file(path)
    except AbsentFileError:
        raise ResultFileError(
            f"no result at {path}; make one with `decompose run PROBLEM --out {path.parent}`"
        ) from None
    except ArrayFileError as error:
        raise ResultFileError(f"{path} cannot be opened: {error}") from error
    with path.open("rb") as file:
        head = file.read(len(_HDF5_SIGNATURE))
    if head != _HDF5_SIGNATURE:
        what = "is empty" if not head else "is not a netCDF-4 file"
        raise ResultFileError(f"{path} {what}; give the result.nc of a `decompose run`")


def _check_version(path: Path, version: object, command: object) -> None:
    try:
        number = int(str(version))
    except ValueError:
        raise ResultFileError(
            f"{path} is not a result of this package (no schema_version among its attributes); "
            "give the result.nc of a `decompose run`"
        ) from None
    if number > SCHEMA_VERSION:
        raise ResultFileError(
            f"{path} has schema {number}, this version reads up to {SCHEMA_VERSION}; "
            "upgrade: pip install --upgrade curvature-decomposition"
        )
    if number < 1:
        raise ResultFileError(
            f"{path} has schema {number}, which is no longer read; "
            f"make it again with: {command or 'decompose run'}"
        )
