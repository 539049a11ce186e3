"""Files that are complete or absent, and that show when they are damaged.

A file is written under another name in the same folder, flushed to the disk and then renamed, so
that a file with its final name is complete whenever its writer was killed. What a rename cannot
prevent (a damaged disk, a copy cut short) is found by a digest: a *framed* file is a magic line, a
SHA-256 digest of key and payload, and the payload. FramedFiles is a folder of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decomposition.errors import StoreError

UNFINISHED = ".decomposition-partial"
"""How names of unfinished files end, and those of no other program's files."""
ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished file is taken for that of a killed process."""

Content = bytes | memoryview

log = logging.getLogger(__name__)


def unfinished(target: Path) -> Path:
    """Where ``target`` may be written before it gets its name; another path in every call."""
    return target.with_name(f".{target.stem[:16]}-{uuid.uuid4().hex}{UNFINISHED}")


def write_atomically(target: Path, *parts: Content) -> None:
    """Put ``parts``, one after the other, at ``target``: all of them or nothing.

    Safe under several processes; the last to finish wins.

    Raises:
        OSError: the folder is absent or cannot be written, or the disk is full.
    """
    temporary = unfinished(target)
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _flush_folder(target.parent)


def write_framed(target: Path, magic: bytes, key: str, payload: Content) -> None:
    """Write ``payload`` with what ``read_framed`` checks it by.

    Raises:
        OSError: as ``write_atomically``.
    """
    write_atomically(target, magic, _digest(key, payload), payload)


def read_framed(path: Path, magic: bytes, key: str) -> bytes | None:
    """The payload that was written under ``key``; None if the file is damaged or foreign.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    content = path.read_bytes()
    head = len(magic) + hashlib.sha256().digest_size
    digest, payload = content[len(magic) : head], content[head:]
    whole = content.startswith(magic) and digest == _digest(key, payload)
    return payload if whole else None


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in ``folder`` an hour ago or more.

    Raises:
        OSError: the folder cannot be read.
    """
    for path in folder.glob(f".*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                path.unlink()


@contextlib.contextmanager
def folder_errors(what: str, verb: str, kept: str) -> Iterator[None]:
    """Around work on a folder: it cannot be used, read or written.

    Args:
        what: the folder, such as ``the bank folder out/bank``.
        verb: ``used``, ``read`` or ``written``.
        kept: what the user still has, and how to go on.

    Raises:
        StoreError: in place of OSError.
        FileNotFoundError: while reading.
    """
    try:
        yield
    except OSError as error:
        if verb == "read" and isinstance(error, FileNotFoundError):
            raise
        raise StoreError(
            f"{what} cannot be {verb} ({error.strerror or error}): free space or choose another "
            f"folder; {kept}"
        ) from error


@dataclass(frozen=True)
class FramedFiles:
    """Payloads by key, each in a framed file of one folder; what is damaged counts as absent.

    Several processes, on several machines that share the folder, may use it at once: a file is
    replaced as a whole, and payloads of one key are equal.

    Raises:
        StoreError: the folder cannot be made, read or written.
    """

    folder: Path
    magic: bytes
    suffix: str
    what: str
    """The folder in a message."""
    kept: str
    """What a user still has where it cannot be used."""
    again: str
    """What is done about a damaged file."""

    def __post_init__(self) -> None:
        """Make the folder if needed and remove what killed processes left."""
        with self._errors("used"):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)

    def path(self, key: str) -> Path:
        """Where the payload of ``key`` is kept."""
        return self.folder / f"{key}{self.suffix}"

    def read(self, key: str) -> bytes | None:
        """The payload of ``key``; None if there is none or it is damaged (and logged)."""
        try:
            with self._errors("read"):
                payload = read_framed(self.path(key), self.magic, key)
        except FileNotFoundError:
            return None
        if payload is None:
            log.warning("%s is damaged: %s", self.path(key), self.again)
        return payload

    def write(self, key: str, payload: Content) -> None:
        """Keep it: afterwards it is on the disk whole, or not at all."""
        with self._errors("written"):
            write_framed(self.path(key), self.magic, key, payload)

    def keys(self) -> list[str]:
        """Keys of all files, damaged ones among them."""
        with self._errors("read"):
            return sorted(path.stem for path in self.folder.glob(f"*{self.suffix}"))

    def _errors(self, verb: str) -> contextlib.AbstractContextManager[None]:
        return folder_errors(self.what, verb, self.kept)


def _digest(key: str, payload: Content) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(payload)
    return digest.digest()


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
