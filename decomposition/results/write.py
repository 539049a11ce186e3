"""Write a result: all of it or none of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import xarray as xr

from decomposition.errors import StoreError
from decomposition.results.validate import check_tree

RESULT_NAME = "result.nc"
"""File name of a result inside its folder."""


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
    # HDF5 loses a failed write in its destructors, so the file is made in memory
    image = tree.to_netcdf(engine="h5netcdf", encoding=_compression(tree))
    write_whole(target, image)
    return target


def write_whole(target: Path, content: bytes | memoryview) -> None:
    """Put ``content`` at ``target``: complete and on disk, or not at all.

    Raises:
        StoreError: the folder cannot be made or written, or the disk is full.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            prefix=f".{target.stem}-", dir=target.parent, delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
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


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # the mask can only be read by setting it
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(folder: Path) -> None:
    """Make the folder and write a probe, so that a long run does not fail at its end.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    probe = folder / ".probe"
    write_whole(probe, b"")
    probe.unlink(missing_ok=True)
