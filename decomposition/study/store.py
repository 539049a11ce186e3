"""Results of tasks on disk: one framed file per key, never trusted blindly.

Beside a result stand what is no part of it: when and how fast it was made (``times``), or why there
is none (``failures``). The payload holds no clock and no host: equal trees give equal bytes. HDF5
does not promise that (where it puts an object header depends on more than the content), so a stored
result is one line of JSON (groups, names, dimensions, attributes) and then every array in ``.npy``
form; what users are given is netCDF-4.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from decomposition.atomic import (
    FramedFiles,
    folder_errors,
    remove_abandoned,
    write_atomically,
)
from decomposition.errors import StudyError

MAGIC = b"decomposition cell 1\n"
SUFFIX = ".cell"
KEPT = "finished tasks are kept and the same command goes on after them"
KINDS = "biufcmMSU"
"""Kinds of NumPy types that an array may have."""

Record = TypeVar("Record")


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    label: str
    """The task, for people."""
    error: str
    """Type of the error, such as ``MemoryError``."""
    message: str
    """What the error says."""
    traceback: str
    """Where it was raised."""
    host: str
    """On which machine."""
    time: float
    """When, in seconds since 1970."""
    seconds: float
    """How long the task had run."""

    @property
    def line(self) -> str:
        """Type and first line of the message."""
        first = next(iter(self.message.strip().splitlines()), "")
        return f"{self.error}: {first}" if first else self.error

    @classmethod
    def of(cls, label: str, error: BaseException, seconds: float) -> Failure:
        """The failure that ``error`` is, on this machine, now."""
        text = "".join(traceback.format_exception(error))
        name = type(error).__qualname__
        return cls(label, name, str(error), text, platform.node(), time.time(), seconds)


@dataclass(frozen=True)
class Timing:
    """How a result came about."""

    seconds: float
    """Wall time of the computation."""
    host: str
    """Where."""
    finished: float
    """When, in seconds since 1970."""
    run: str
    """Which run of the study."""


class CellStore:
    """The results, timings and failures of a study, by key.

    Several processes, on several machines that share the folder, may use it at once.

    Raises:
        StoreError: the folder cannot be made, read or written.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folders if needed and remove what killed processes left."""
        self.folder = Path(folder).absolute()
        self.cells = self.folder / "cells"
        self.failures = self.folder / "failures"
        self.times = self.folder / "times"
        self._what = f"the study's folder {self.folder}"
        self._files = FramedFiles(
            self.cells, MAGIC, SUFFIX, self._what, KEPT, "it is computed again"
        )
        with self._errors("used"):
            for path in (self.failures, self.times):
                path.mkdir(parents=True, exist_ok=True)
                remove_abandoned(path)

    def load(self, key: str) -> xr.DataTree | None:
        """The result saved under ``key``, in memory; None if there is none or it is damaged."""
        payload = self._files.read(key)
        return None if payload is None else bytes_tree(payload)

    def save(self, key: str, tree: xr.DataTree) -> None:
        """Keep ``tree`` under ``key``: afterwards it is on the disk whole, or not at all.

        Raises:
            StudyError: the tree holds what ``tree_bytes`` refuses.
        """
        self._files.write(key, tree_bytes(tree))

    def has(self, key: str) -> bool:
        """Whether there is an undamaged result; reads all of it."""
        return self._files.read(key) is not None

    def keys(self) -> list[str]:
        """Keys of all results, damaged ones among them."""
        return self._files.keys()

    def failure(self, key: str) -> Failure | None:
        """Why the last attempt at ``key`` failed; None if it did not."""
        return self._record(self.failures, key, Failure)

    def save_failure(self, key: str, failure: Failure) -> None:
        """Write why a task failed."""
        self._save_record(self.failures, key, asdict(failure))

    def clear_failure(self, key: str) -> None:
        """Forget it."""
        with self._errors("written"):
            (self.failures / f"{key}.json").unlink(missing_ok=True)

    def timing(self, key: str) -> Timing | None:
        """When and how fast the result under ``key`` was made, where that is known."""
        return self._record(self.times, key, Timing)

    def save_timing(self, key: str, timing: Timing) -> None:
        """Write how long a task took."""
        self._save_record(self.times, key, asdict(timing))

    def _record(self, folder: Path, key: str, kind: type[Record]) -> Record | None:
        try:
            with self._errors("read"):
                return kind(**json.loads((folder / f"{key}.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # a note about a result, written again with the next attempt

    def _save_record(self, folder: Path, key: str, record: Mapping[str, Any]) -> None:
        with self._errors("written"):
            write_atomically(folder / f"{key}.json", json.dumps(record, indent=1).encode())

    def _errors(self, verb: str) -> contextlib.AbstractContextManager[None]:
        return folder_errors(self._what, verb, KEPT)


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
