"""Write a result: all of it or none of it."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from decomposition.atomic import write_atomically
from decomposition.errors import StoreError
from decomposition.results.digest import with_digest
from decomposition.results.validate import check_tree

RESULT_NAME = "result.nc"
"""File name of a result inside its folder."""
STUDY_NAME = "study.nc"
"""File name of a combined study inside its folder."""


def write_result(tree: xr.DataTree, folder: str | os.PathLike[str]) -> Path:
    """Write ``tree`` to ``folder/result.nc`` and return that path.

    The file appears under its name only when it is complete and on disk: a run that is killed
    leaves the earlier result, or none.

    Raises:
        ResultFileError: the tree departs from ``results/schema``.
        StoreError: the folder cannot be made or written, or the disk is full.
    """
    check_tree(tree, "the result to be written", strict=True)
    target = Path(folder) / RESULT_NAME
    write_tree(tree, target)
    return target


def write_tree(tree: xr.DataTree, target: Path) -> None:
    """Write any tree to ``target`` in one piece, its larger arrays compressed, with a digest.

    Raises:
        StoreError: the folder cannot be made or written, or the disk is full.
    """
    # HDF5 loses a failed write in its destructors, so the file is made in memory
    content = tree.to_netcdf(engine="h5netcdf", encoding=_compression(tree))
    write_whole(target, with_digest(content))


def write_whole(target: Path, content: bytes | memoryview) -> None:
    """Put ``content`` at ``target``: complete and on disk, or not at all.

    Raises:
        StoreError: the folder cannot be made or written, or the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    except OSError as error:
        raise StoreError(
            f"cannot write {target}: {error}; "
            "choose another --out, or free space and make the folder writable"
        ) from error


def _compression(tree: xr.DataTree) -> dict[str, dict[str, dict[str, object]]]:
    """Deflate for arrays worth it; the bank and the spectra are most of a file."""
    return {
        node.path: {
            str(name): {"zlib": True, "complevel": 4, "shuffle": True}
            for name, array in node.data_vars.items()
            if array.dtype.kind in "fiub" and array.nbytes > 4096
        }
        for node in tree.subtree
        if node.data_vars
    }


def check_writable(folder: Path) -> None:
    """Make the folder and write a probe, so that a long run does not fail at its end.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    probe = folder / ".probe"
    write_whole(probe, b"")
    probe.unlink(missing_ok=True)
