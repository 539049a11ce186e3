"""Write a result: all of it or none of it."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import xarray as xr

from decomposition.atomic import remove_abandoned, unfinished, write_atomically
from decomposition.errors import StoreError
from decomposition.results.digest import DIGEST, with_digest
from decomposition.results.validate import check_tree

RESULT_NAME = "result.nc"
"""File name of a result inside its folder."""
STUDY_NAME = "study.nc"
"""File name of a combined study inside its folder."""
REPORT_NAME = "report.html"
"""File name of a report inside its folder."""
COMPARISON_NAME = "comparison.html"
"""File name of a report of several results inside its folder."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_OUR_ATTRIBUTES = {DIGEST, "library_version"}
_OUR_PAGE = b"curvature-decomposition"
_SAY_IT = "name one (--out results/), or say --out . for the current one"
_OTHER = "name another folder (--out), or remove it"


def write_result(tree: xr.DataTree, folder: str | os.PathLike[str]) -> Path:
    """Write ``tree`` to ``folder/result.nc`` and return that path.

    The file appears under its name only when it is complete and on disk: a run that is killed
    leaves the earlier result, or none.

    Raises:
        ResultFileError: the tree departs from ``results/schema``.
        StoreError: the folder cannot be made or written, or the disk is full.
    """
    check_tree(tree, "the result to be written", strict=True)
    target = output_folder(folder) / RESULT_NAME
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

    What killed processes left unfinished in that folder is removed.

    Raises:
        StoreError: the folder cannot be made or written, the disk is full, or a file of another
            program is there.
    """
    check_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
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


def output_folder(out: str | os.PathLike[str]) -> Path:
    """The folder that a user names for what is written.

    Raises:
        StoreError: the name is empty, which is likely a variable without a value, or a file's.
    """
    name = os.fspath(out)
    if not name:
        raise StoreError(f"the name of the output folder is empty: {_SAY_IT}")
    if os.path.lexists(name) and not os.path.isdir(name):
        raise StoreError(f"cannot write to {name}: it is no folder; {_OTHER}")
    return Path(name)


def check_writable(folder: Path, *names: str) -> None:
    """Make the folder and write a probe, so that a long run does not fail at its end.

    Args:
        folder: made if needed; what killed processes left unfinished in it is removed.
        names: of files that will be written there.

    Raises:
        StoreError: the folder cannot be made or written, or a file of another program would be
            overwritten.
    """
    for name in names:
        check_replaceable(folder / name)
    probe = unfinished(folder / "probe")
    write_whole(probe, b"")
    probe.unlink(missing_ok=True)


def check_replaceable(target: Path) -> None:
    """Raise StoreError if ``target`` is there and was written by another program.

    A netCDF file that is cut short, as an earlier result may be, can be replaced.
    """
    try:
        ours = not os.path.lexists(target) or _is_ours(target)
    except OSError as error:
        raise StoreError(f"{target} cannot be read ({error.strerror}): {_OTHER}") from error
    if not ours:
        raise StoreError(
            f"{target} was not written by this package, and would be overwritten: {_OTHER}"
        )


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix == ".html":
        content = path.read_bytes()
        return not content or _OUR_PAGE in content
    if path.suffix != ".nc":
        return True
    with path.open("rb") as file:
        head = file.read(len(_HDF5))
    if head != _HDF5:
        return _HDF5.startswith(head)
    try:
        with h5py.File(path, "r") as file:
            return not _OUR_ATTRIBUTES.isdisjoint(file.attrs)
    except Exception:  # damaged: h5py has several types for it
        return True
