"""``idx:FOLDER``: images and labels in MNIST's format, with MNIST's four file names.

A file is bytes 0 0, a type code, the number of dimensions, one unsigned 32-bit size per dimension,
and then numbers, all big-endian (Y. LeCun, C. Cortes, C. J. C. Burges, *The MNIST database of
handwritten digits*).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int, Num

from decomposition.errors import ProblemError
from decomposition.problems.data_files import class_codes
from decomposition.problems.options import Spec
from decomposition.problems.table import Defaults, Table
from decomposition.recipe import Recipe

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
FILES = {
    "training images": "train-images-idx3-ubyte",
    "training labels": "train-labels-idx1-ubyte",
    "query images": "t10k-images-idx3-ubyte",
    "query labels": "t10k-labels-idx1-ubyte",
}
OPTIONS = {
    "queries": "number of query images (default 500)",
    "pool": "average the pixels of squares of this side first (default 1: as they are)",
    "duplicates": "queries that are training images: refuse (default), drop, allow",
}
DEFAULTS = Defaults(
    hidden=(8,),
    quick_hidden=(4,),
    activation="gelu",
    recipe=Recipe(schedule="cosine"),
    queries=500,
    examples=5000,
    quick_examples=1000,
)


def idx_table(spec: Spec, folder: str) -> Table:
    """Images in MNIST's format.

    The folder holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, plain or .gz. 5,000 training images (1,000 with ``quick``) and 500
    queries are kept, the first of their seeded permutations, unless options say otherwise; one
    hidden layer of 8 (P = 6,370 for 28×28 pixels and ten classes). Pixels are standardised.

    Raises:
        ProblemError: a file is absent or damaged, or the files do not fit each other.
    """
    images, labels = _pair(folder, "training")
    query_images, query_labels = _pair(folder, "query")
    if images.shape[1:] != query_images.shape[1:]:
        raise ProblemError(
            f"{folder}: training images have {images.shape[1:]} pixels, query images "
            f"{query_images.shape[1:]}"
        )
    side = spec.whole("pool", 1, least=1) or 1
    images, query_images = (_pooled(part, side, folder) for part in (images, query_images))
    codes, query_codes, classes = class_codes(labels, query_labels, folder)
    assert query_codes is not None
    flat = [part.reshape(len(part), -1) for part in (images, query_images)]
    return Table(
        name=Path(folder).expanduser().resolve().name,
        inputs=flat[0],
        targets=codes,
        classes=classes,
        held_out=(flat[1], query_codes),
        display={"image_shape": list(images.shape[1:])},
        source=folder,
        row_name="image {}".format,
        way_out="leave the image out",
    )


def _pair(folder: str, part: str) -> tuple[Num[np.ndarray, "n h w"], Int[np.ndarray, " n"]]:
    paths = [_path(folder, f"{part} {what}") for what in ("images", "labels")]
    images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if len(images) != len(labels):
        raise ProblemError(
            f"{paths[0]} has {len(images)} images, but {paths[1]} has {len(labels)} labels: are "
            "they of the same data set?"
        )
    if images.size == 0:
        raise ProblemError(f"{paths[0]} holds no pixels: its array is {images.shape}")
    if not np.isfinite(images).all():
        raise ProblemError(f"{paths[0]} holds NaN or infinity")
    if labels.dtype.kind == "f":
        raise ProblemError(f"{paths[1]} holds {labels.dtype}: labels must be whole numbers")
    return images, labels


def _path(folder: str, what: str) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ProblemError(f"no folder {folder}: check the path (it starts at {Path.cwd()})")
    name = FILES[what]
    for candidate in (name, f"{name}.gz"):
        if (root / candidate).is_file():
            return root / candidate
    raise ProblemError(f"{folder} has no {what}: a file named {name}, plain or with .gz, is needed")


def _pooled(images: np.ndarray, side: int, folder: str) -> np.ndarray:
    """Means over squares of ``side`` × ``side`` pixels."""
    if side == 1:
        return images
    n, height, width = images.shape
    if height % side or width % side:
        raise ProblemError(
            f"{folder}: images of {height} × {width} pixels cannot be cut into squares of side "
            f"{side}: use a common divisor, or pool=1"
        )
    squares = images.reshape(n, height // side, side, width // side, side)
    return squares.mean((2, 4), dtype=np.float64)


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
