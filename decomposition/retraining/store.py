"""The bank on disk: one file per chunk, written atomically, named after what determines it.

Writers on the same folder can only replace a file by one with equal content.

Size: only outputs on the queries are kept, in the training precision, never parameters: 4·M·R·Q·C
bytes in float32, 7.2 MB for 1,000 models, 180 queries and 10 outputs.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from decomposition.atomic import FramedFiles

MAGIC = b"decomposition bank chunk 1\n"
SUFFIX = ".chunk"
KEPT = "finished chunks are kept and the same command resumes after them"


class ChunkStore:
    """Arrays by key in a folder; without a folder, nothing is kept.

    Raises:
        StoreError: the folder cannot be made, read or written.
    """

    def __init__(self, folder: Path | None) -> None:
        """Make the folder if needed and remove what killed processes left."""
        self.folder, self._files = folder, None
        if folder is not None:
            again = "its models are trained again"
            what = f"the bank folder {folder}"
            self._files = FramedFiles(Path(folder), MAGIC, SUFFIX, what, KEPT, again)

    def load(self, key: str) -> np.ndarray | None:
        """The array saved under ``key``; None if there is none or it is damaged (and logged)."""
        payload = None if self._files is None else self._files.read(key)
        return None if payload is None else np.load(io.BytesIO(payload), allow_pickle=False)

    def save(self, key: str, array: np.ndarray) -> None:
        """Keep ``array`` under ``key``: afterwards it is on the disk whole, or not at all."""
        if self._files is None:
            return
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self._files.write(key, buffer.getbuffer())
