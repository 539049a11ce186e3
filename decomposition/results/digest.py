"""A digest of all that a netCDF file says, kept in the file: damage shows when it is read.

HDF5 checks neither its structure nor its numbers: with a byte flipped, a file opens with another
eigenvalue, or without an attribute. The digest is over what is *read* from the file (names,
dimensions, values and attributes of every group), so it holds for a copy.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import xarray as xr

from decomposition.errors import ResultFileError

DIGEST = "content_sha256"
"""Attribute of the root; a file without it is not checked."""


def with_digest(content: bytes | memoryview) -> memoryview:
    """A netCDF-4 file with the digest of what is read from it."""
    file = io.BytesIO(content)
    with xr.open_datatree(file, engine="h5netcdf") as tree:
        digest = content_digest(tree.load())
    with h5py.File(file, "r+") as opened:
        opened.attrs[DIGEST] = digest
    return file.getbuffer()


def check_digest(tree: xr.DataTree) -> None:
    """Compare a tree that was read with the digest that it came with, and drop that.

    Raises:
        ResultFileError: the content is not what was written; the message is the reason alone.
    """
    stored = tree.attrs.pop(DIGEST, None)
    if stored is not None and stored != content_digest(tree):
        raise ResultFileError(
            f"its content does not have the digest that it was written with; if you changed it on "
            f"purpose, delete the attribute {DIGEST} of its root: "
            f'h5py.File(path, "r+").attrs.pop("{DIGEST}")'
        )


def content_digest(tree: xr.DataTree) -> str:
    """SHA-256 over groups, names, dimensions, values and attributes, apart from the digest."""
    digest = hashlib.sha256()
    for node in tree.subtree:
        data = node.to_dataset(inherit=False)
        _add_attributes(digest, node.path, data.attrs)
        for name, variable in data.variables.items():
            about = (name, name in data.coords, variable.dims, variable.shape)
            _add_attributes(digest, repr(about), variable.attrs)
            _add_values(digest, variable.values)
    return digest.hexdigest()


def _add_attributes(digest: Any, owner: str, attrs: Mapping[Any, Any]) -> None:
    _add_values(digest, np.array([owner, *sorted(attrs.keys() - {DIGEST})], object))
    for name in sorted(attrs.keys() - {DIGEST}):
        _add_values(digest, np.asarray(attrs[name]))


def _add_values(digest: Any, values: np.ndarray) -> None:
    """Numbers by their bytes, anything else as text: libraries differ in the type of strings."""
    if values.dtype.kind in "biufc":
        digest.update(f"{values.dtype.str}{values.size}".encode())
        digest.update(np.ascontiguousarray(values).data)
    else:
        texts = [str(value).encode("utf-8", "surrogatepass") for value in values.flat]
        digest.update(f"text{len(texts)}{[len(text) for text in texts]}".encode())
        digest.update(b"".join(texts))
