"""The bank on disk: one file per chunk, written atomically, named after what determines it.

A file is framed as ``decomposition.atomic`` has it, with an array in ``.npy`` form as its payload.
Writers on the same folder can only replace a file by one with equal content.

Size: only outputs on the queries are kept, in the training precision, never parameters: 4·M·R·Q·C
bytes in float32, 7.2 MB for 1,000 models, 180 queries and 10 outputs.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np

from decomposition.atomic import read_framed, remove_abandoned, write_framed
from decomposition.errors import StoreError

MAGIC = b"decomposition bank chunk 1\n"
SUFFIX = ".chunk"

log = logging.getLogger(__name__)


class ChunkStore:
    """Arrays by key in a folder; without a folder, nothing is kept.

    Raises:
        StoreError: the folder cannot be made, read or written.
    """

    def __init__(self, folder: Path | None) -> None:
        """Make the folder if needed and remove what killed processes left."""
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)
        except OSError as error:
            raise self._failure("used", error) from error

    def load(self, key: str) -> np.ndarray | None:
        """The array saved under ``key``; None if there is none or it is damaged (and logged)."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            payload = read_framed(path, MAGIC, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure("read", error) from error
        if payload is None:
            log.warning("%s is damaged: its models are trained again", path)
            return None
        return np.load(io.BytesIO(payload), allow_pickle=False)

    def save(self, key: str, array: np.ndarray) -> None:
        """Keep ``array`` under ``key``: afterwards it is on the disk whole, or not at all."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        try:
            write_framed(self._path(key), MAGIC, key, buffer.getbuffer())
        except OSError as error:
            raise self._failure("written", error) from error

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}{SUFFIX}"

    def _failure(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"the bank folder {self.folder} cannot be {what} ({error.strerror or error}): free "
            "space or choose another folder; finished chunks are kept and the same command "
            "resumes after them"
        )
