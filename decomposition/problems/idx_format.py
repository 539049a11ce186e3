"""Read IDX files, the format of MNIST: magic number, sizes, numbers, all big-endian.

Format: bytes 0 0, a type code, the number of dimensions, then one unsigned 32-bit size per
dimension (Y. LeCun, C. Cortes, C. J. C. Burges, *The MNIST database of handwritten digits*).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from decomposition.errors import ProblemError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array in an IDX file, plain or gzip-compressed whatever its name says.

    Args:
        path: the file.
        dimensions: how many the array must have.

    Raises:
        ProblemError: the file cannot be read, is not IDX, has another number of dimensions, or
            more or fewer numbers than its header says.
    """
    data = _contents(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
        raise ProblemError(
            f"{path} is not an IDX file: it starts with {data[:4].hex(' ') or 'nothing'}, not with "
            "00 00, a type code (08 for bytes) and the number of dimensions; download it again"
        )
    found = data[3]
    if found != dimensions:
        what = {1: "labels", 3: "images"}.get(found, "neither images nor labels")
        raise ProblemError(
            f"{path} has {found} dimensions ({what}), {dimensions} are needed: are the images and "
            "the labels exchanged?"
        )
    start = 4 + 4 * found
    if len(data) < start:
        raise ProblemError(f"{path} ends inside its header ({len(data)} bytes): download it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", found, 4))
    kind = np.dtype(TYPES[data[2]])
    expected = start + math.prod(shape) * kind.itemsize
    if len(data) != expected:
        state = "truncated" if len(data) < expected else "longer than its header says"
        raise ProblemError(
            f"{path} is {state}: {len(data)} bytes where {expected} are expected for an array of "
            f"{' × '.join(map(str, shape))}; download it again"
        )
    return np.frombuffer(data, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def _contents(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == GZIP_MAGIC else data
    except (OSError, EOFError, zlib.error) as error:
        raise ProblemError(
            f"{path} cannot be read: {type(error).__name__}: {error}; download it again"
        ) from error
