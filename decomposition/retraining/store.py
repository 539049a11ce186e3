"""The bank on disk: one file per chunk, written atomically, named after what determines it.

A file is a magic line, a SHA-256 digest of key and content, and an array in ``.npy`` form. It is
written under another name in the same folder, flushed to the disk and then renamed, so that a file
with its final name is complete; the digest finds what a rename cannot prevent (a damaged disk, a
copy cut short). Writers on the same folder can only replace a file by one with equal content.

Size: only outputs on the queries are kept, in the training precision, never parameters: 4·M·R·Q·C
bytes in float32, 7.2 MB for 1,000 models, 180 queries and 10 outputs.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from decomposition.errors import StoreError

MAGIC = b"decomposition bank chunk 1\n"
SUFFIX, UNFINISHED = ".chunk", ".partial"
ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished file is taken for that of a killed process."""

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
            for path in self.folder.glob(f"*{UNFINISHED}"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                        path.unlink()
        except OSError as error:
            raise self._failure("used", error) from error

    def load(self, key: str) -> np.ndarray | None:
        """The array saved under ``key``; None if there is none or it is damaged (and logged)."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure("read", error) from error
        head = len(MAGIC) + hashlib.sha256().digest_size
        digest, payload = content[len(MAGIC) : head], content[head:]
        if not content.startswith(MAGIC) or digest != _digest(key, payload):
            log.warning("%s is damaged: its models are trained again", path)
            return None
        return np.load(io.BytesIO(payload), allow_pickle=False)

    def save(self, key: str, array: np.ndarray) -> None:
        """Keep ``array`` under ``key``: afterwards it is on the disk whole, or not at all."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        payload = buffer.getvalue()
        try:
            self._write(key, MAGIC + _digest(key, payload) + payload)
        except OSError as error:
            raise self._failure("written", error) from error

    def _write(self, key: str, content: bytes) -> None:
        assert self.folder is not None
        descriptor, name = tempfile.mkstemp(UNFINISHED, key[:16] + "-", self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        self._flush_folder()

    def _flush_folder(self) -> None:
        assert self.folder is not None
        with contextlib.suppress(OSError):  # not every file system can
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}{SUFFIX}"

    def _failure(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"the bank folder {self.folder} cannot be {what} ({error.strerror or error}): free "
            "space or choose another folder; finished chunks are kept and the same command "
            "resumes after them"
        )


def _digest(key: str, payload: bytes) -> bytes:
    return hashlib.sha256(key.encode() + payload).digest()
