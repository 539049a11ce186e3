"""Files that are complete or absent, and that show when they are damaged.

A file is written under another name in the same folder, flushed to the disk and then renamed, so
that a file with its final name is complete whenever its writer was killed. What a rename cannot
prevent (a damaged disk, a copy cut short) is found by a digest: a *framed* file is a magic line, a
SHA-256 digest of key and payload, and the payload.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from pathlib import Path

UNFINISHED = ".decomposition-partial"
"""How names of unfinished files end, and those of no other program's files."""
ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished file is taken for that of a killed process."""

Content = bytes | memoryview


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
