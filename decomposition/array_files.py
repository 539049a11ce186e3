"""Arrays from files that others wrote: whole and as they were written, or refused with the reason.

What a format has to show damage by is checked (a ZIP archive: the CRC-32 of every member and the
two headers that each has), a size that is claimed is held against the size of the file before any
memory is taken, and nothing is opened that is no regular file: reading a pipe would wait for ever.
"""

from __future__ import annotations

import math
import mmap
import stat
import struct
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import xarray as xr

from decomposition.errors import DecompositionError

NPY = ".npy"
MOST_EXPANSION = 1032
"""Bytes that one byte of a deflated stream can stand for."""
PIECE = 1 << 20
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
HEAP, HEAP_OBJECT = b"GCOL\x01\0\0\0", struct.Struct("<HHIQ")
"""How a global heap of HDF5 begins, and the header of each of its objects."""
SIZES_FOLLOW = 0x08
"""Flag of a local header: checksum and sizes stand behind the data."""


class ArrayFileError(DecompositionError, ValueError):
    """A file is damaged or holds something else; the message is the reason alone."""


class AbsentFileError(ArrayFileError):
    """There is no such file."""


def check_file(path: Path) -> int:
    """The size of a regular file that can be read, in bytes.

    Raises:
        AbsentFileError: there is none.
        ArrayFileError: it is a folder, a pipe or a device, or must not be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
            raise ArrayFileError(f"it is {what}, not a file")
        with path.open("rb"):
            return found.st_size
    except ArrayFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        kind = AbsentFileError if isinstance(error, FileNotFoundError) else ArrayFileError
        raise kind(getattr(error, "strerror", None) or str(error)) from error


def check_claim(what: str, claimed: int, stored: int) -> None:
    """Raise ArrayFileError if ``stored`` bytes cannot hold ``claimed``, however compressed."""
    if claimed > MOST_EXPANSION * stored + PIECE:
        raise ArrayFileError(
            f"{what} claims {claimed:.3g} bytes, more than {stored:,} stored bytes can hold"
        )


def native(array: np.ndarray) -> np.ndarray:
    """Numbers in the byte order of this machine, wider floats than float64 as float64."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, eq=False)
class Archive:
    """What a NumPy archive holds."""

    names: tuple[str, ...]
    """Names of all arrays in the file, without ``.npy``."""
    arrays: dict[str, np.ndarray]
    """Those that were asked for and are there, numbers in ``native`` form."""


def read_archive(path: Path, wanted: Collection[str]) -> Archive:
    """The arrays of these names in a NumPy archive (``.npz``), every member of it checked.

    Raises:
        ArrayFileError: the file is absent or no archive, a member is damaged, or one that is
            wanted is no plain array.
    """
    check_file(path)
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as file:
            members = {info.filename.removesuffix(NPY): info for info in file.infolist()}
            if len(members) < len(file.infolist()):
                raise ArrayFileError("two of its members have the same name")
            for info in members.values():
                _check_member(file, stream, info)
            found = {
                name: native(_array(file, info)) for name, info in members.items() if name in wanted
            }
            return Archive(tuple(members), found)
    except DecompositionError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen types between them
        raise ArrayFileError(reason_of(error)) from error


def _check_member(file: zipfile.ZipFile, stream: BinaryIO, info: zipfile.ZipInfo) -> None:
    """Raise if the two headers of a member differ, or its bytes and their checksum do."""
    check_claim(repr(info.filename), info.file_size, info.compress_size)
    with file.open(info) as member:  # compares the names
        size = 0
        while piece := member.read(PIECE):
            size += len(piece)
    stream.seek(info.header_offset)
    local = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    _, _, flags, method, _, _, checksum, packed, unpacked, _, _ = local
    same = (flags, method) == (info.flag_bits, info.compress_type)
    if not flags & SIZES_FOLLOW:
        wide = 0xFFFFFFFF  # the size stands in an extra field
        same &= checksum == info.CRC
        same &= packed in (info.compress_size, wide) and unpacked in (info.file_size, wide)
    if not same or size != info.file_size:
        raise ArrayFileError(f"the two headers of {info.filename!r} differ")


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """The array of a member in ``.npy`` form, its header held against the member's size."""
    try:
        with file.open(info) as member:
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[np.lib.format.read_magic(member)]
            shape, _, dtype = read(member)
            left = info.file_size - member.tell()
    except Exception as error:  # the header is a Python expression: another dozen
        raise ArrayFileError(
            f"{info.filename} is no array in .npy form ({reason_of(error)}): a pickle, or text?"
        ) from error
    if dtype.hasobject:
        raise ArrayFileError(f"{info.filename} holds Python objects, which are never opened")
    claimed = dtype.itemsize * math.prod(shape)
    if claimed != left or min(shape, default=0) < 0:
        raise ArrayFileError(
            f"{info.filename} is {dtype} of shape {shape} by its header, which takes "
            f"{claimed:.3g} bytes, and {left:,} follow"
        )
    with file.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


@contextmanager
def open_tree(path: Path, **decoding: Any) -> Iterator[xr.DataTree]:
    """The netCDF-4 file at ``path``, nothing read yet; what it claims fits into its size.

    Args:
        path: the file.
        decoding: options of ``xarray.open_datatree``.

    Raises:
        ArrayFileError: it is no file, holds what has no shape, or claims more than it can hold; a
            file that is damaged raises a dozen types of h5py, h5netcdf and xarray.
    """
    size = check_file(path)
    _check_heaps(path)
    with h5py.File(path, "r") as file:
        # where this fails, h5netcdf leaves half a file, whose destructor prints a traceback
        file.attrs.get("_nc3_strict")
        file.visititems(_check_space)
    with xr.open_datatree(path, engine="h5netcdf", phony_dims="access", **decoding) as tree:
        for node in tree.subtree:
            for name, variable in node.to_dataset(inherit=False).variables.items():
                check_claim(f"{node.path.rstrip('/')}/{name}", variable.nbytes, size)
        yield tree


def _check_heaps(path: Path) -> None:
    """Walk the global heaps of an HDF5 file, where the library loops for ever if a size is 0."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            end = start + int.from_bytes(content[start + 8 : start + 16], "little")
            place = start + 16
            while place + HEAP_OBJECT.size <= min(end, len(content)):
                number, _, _, size = HEAP_OBJECT.unpack_from(content, place)
                # object 0 is what is free, its header included; others are padded to 8 bytes
                step = size if number == 0 else HEAP_OBJECT.size + -(-size // 8) * 8
                if step < HEAP_OBJECT.size or place + step > end:
                    raise ArrayFileError(f"its heap at byte {start} is damaged")
                place += step
            start = content.find(HEAP, start + 1)


def _check_space(name: str, item: h5py.Group | h5py.Dataset) -> None:
    if isinstance(item, h5py.Dataset) and item.shape is None:
        raise ArrayFileError(f"{name} has no values and no shape (an HDF5 null space)")


def reason_of(error: BaseException) -> str:
    """The first line of what an exception says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
