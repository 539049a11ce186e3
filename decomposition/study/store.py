"""Results of tasks on disk: one framed file per key, never trusted blindly.

Beside a result stand what is no part of it: when and how fast it was made (``times``), or why there
is none (``failures``). The payload holds no clock and no host: equal trees give equal bytes.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from decomposition.atomic import read_framed, remove_abandoned, write_atomically, write_framed
from decomposition.errors import StoreError
from decomposition.study.failure import Failure
from decomposition.study.payload import bytes_tree, tree_bytes

MAGIC = b"decomposition cell 1\n"
SUFFIX = ".cell"

log = logging.getLogger(__name__)
Record = TypeVar("Record")


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

    Several processes, on several machines that share the folder, may use it at once: a file is
    replaced as a whole, and results of the same key are equal.

    Raises:
        StoreError: the folder cannot be made, read or written.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folders if needed and remove what killed processes left."""
        self.folder = Path(folder).absolute()
        self.cells = self.folder / "cells"
        self.failures = self.folder / "failures"
        self.times = self.folder / "times"
        with self._named("used"):
            for path in (self.cells, self.failures, self.times):
                path.mkdir(parents=True, exist_ok=True)
                remove_abandoned(path)

    def load(self, key: str) -> xr.DataTree | None:
        """The result saved under ``key``, in memory; None if there is none or it is damaged."""
        payload = self._payload(key)
        return None if payload is None else bytes_tree(payload)

    def save(self, key: str, tree: xr.DataTree) -> None:
        """Keep ``tree`` under ``key``: afterwards it is on the disk whole, or not at all.

        Raises:
            StudyError: the tree holds what ``tree_bytes`` refuses.
        """
        payload = tree_bytes(tree)
        with self._named("written"):
            write_framed(self._cell(key), MAGIC, key, payload)

    def has(self, key: str) -> bool:
        """Whether there is an undamaged result; reads all of it."""
        return self._payload(key) is not None

    def keys(self) -> list[str]:
        """Keys of all results, damaged ones among them."""
        with self._named("read"):
            return sorted(path.stem for path in self.cells.glob(f"*{SUFFIX}"))

    def failure(self, key: str) -> Failure | None:
        """Why the last attempt at ``key`` failed; None if it did not."""
        return self._record(self.failures, key, Failure)

    def save_failure(self, key: str, failure: Failure) -> None:
        """Write why a task failed."""
        self._save_record(self.failures, key, asdict(failure))

    def clear_failure(self, key: str) -> None:
        """Forget it."""
        with self._named("written"):
            (self.failures / f"{key}.json").unlink(missing_ok=True)

    def timing(self, key: str) -> Timing | None:
        """When and how fast the result under ``key`` was made, where that is known."""
        return self._record(self.times, key, Timing)

    def save_timing(self, key: str, timing: Timing) -> None:
        """Write how long a task took."""
        self._save_record(self.times, key, asdict(timing))

    def _payload(self, key: str) -> bytes | None:
        path = self._cell(key)
        try:
            with self._named("read"):
                payload = read_framed(path, MAGIC, key)
        except FileNotFoundError:
            return None
        if payload is None:
            log.warning("%s is damaged: it is computed again", path)
        return payload

    def _record(self, folder: Path, key: str, kind: type[Record]) -> Record | None:
        try:
            with self._named("read"):
                return kind(**json.loads((folder / f"{key}.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # a note about a result, written again with the next attempt

    def _save_record(self, folder: Path, key: str, record: Mapping[str, Any]) -> None:
        with self._named("written"):
            write_atomically(folder / f"{key}.json", json.dumps(record, indent=1).encode())

    def _cell(self, key: str) -> Path:
        return self.cells / f"{key}{SUFFIX}"

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if what == "read":
                raise
            raise StoreError(f"the study's folder {self.folder} has disappeared") from None
        except OSError as error:
            raise StoreError(
                f"the study's folder {self.folder} cannot be {what} ({error.strerror or error}): "
                "free space or choose another folder; finished tasks are kept and the same "
                "command goes on after them"
            ) from error
