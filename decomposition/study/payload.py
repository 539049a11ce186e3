"""A tree of data sets as bytes, the same bytes for the same tree.

HDF5 does not promise that: where it puts an object header depends on more than the content, and
two files that read the same can differ. So a stored result is one line of JSON (groups, names,
dimensions, attributes) and then every array in ``.npy`` form; what users are given is netCDF-4.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import xarray as xr

from decomposition.study.failure import StudyError

KINDS = "biufcmMSU"
"""Kinds of NumPy types that an array may have."""


def tree_bytes(tree: xr.DataTree) -> bytes:
    """``tree`` as bytes; encodings are dropped, tuples in attributes become lists.

    Raises:
        StudyError: a variable holds objects, or an attribute something that JSON cannot.
    """
    groups, arrays = [], []
    for node in tree.subtree:
        data = node.to_dataset(inherit=False)
        variables = []
        for name, variable in data.variables.items():
            arrays.append(_plain(variable.values, f"{node.path}/{name}"))
            coordinate = name in data.coords
            variables.append([name, list(variable.dims), coordinate, _attrs(variable.attrs)])
        groups.append([node.path, _attrs(data.attrs), variables])
    try:
        head = json.dumps(groups, separators=(",", ":"), default=_number)
    except TypeError as error:
        raise StudyError(f"a result cannot be kept: an attribute or a name: {error}") from error
    stream = io.BytesIO()
    stream.write(head.encode() + b"\n")
    for array in arrays:
        np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def bytes_tree(content: bytes) -> xr.DataTree:
    """The tree that ``tree_bytes`` has made into ``content``."""
    stream = io.BytesIO(content)
    datasets = {}
    for path, attrs, variables in json.loads(stream.readline()):
        members: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        for name, dims, coordinate, own in variables:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            members[coordinate][name] = (dims, array, own)
        datasets[path] = xr.Dataset(*members, attrs)
    return xr.DataTree.from_dict(datasets)


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind in "OT" and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in KINDS:
        raise StudyError(f"a result cannot be kept: {name} has type {array.dtype}")
    return np.asarray(array, order="C")


def _attrs(attrs: dict[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in attrs.items()}


def _number(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} is of type {type(value).__name__}")
