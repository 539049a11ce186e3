"""Arrays by name from a NumPy archive or a netCDF-4 file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from decomposition.errors import DecompositionError

ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
DIMENSIONS = {
    "masks": ("mask", "train"),
    "outputs": ("mask", "repeat", "query", "output"),
    "losses": ("mask", "repeat", "query"),
    "second_outputs": ("second_mask", "query", "output"),
    "second_losses": ("second_mask", "query"),
}
"""Where a netCDF file has these names of dimensions, their order in the file does not matter."""


class BankFileError(DecompositionError):
    """A supplied bank cannot be read, or does not fit the problem."""


def read_arrays(
    path: Path, required: Sequence[str], optional: Sequence[str]
) -> dict[str, np.ndarray]:
    """The arrays of these names that the file holds.

    Raises:
        BankFileError: the file is absent, neither NPZ nor netCDF-4, or damaged, or a required
            array is not there.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(HDF5))
    except OSError as error:
        raise BankFileError(f"the bank {path} cannot be read: {error.strerror}") from error
    if start[: len(ZIP)] == ZIP:
        read = _from_npz
    elif start == HDF5:
        read = _from_netcdf
    else:
        raise BankFileError(
            f"{path} is neither a NumPy archive (.npz) nor netCDF-4: see docs/supplied_bank.md"
        )
    try:
        found = read(path, (*required, *optional))
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, EOFError) as error:
        raise BankFileError(f"{path} is damaged, or holds Python objects: {error}") from error
    absent = [name for name in required if name not in found]
    if absent:
        raise BankFileError(
            f"{path} holds no array {', '.join(absent)} (it holds {', '.join(found) or 'none'} of "
            "a bank's): see docs/supplied_bank.md"
        )
    return found


def _from_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return {name: file[name] for name in names if name in file.files}


def _from_netcdf(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        data = (tree["bank"] if "bank" in tree.children else tree).to_dataset()
        found = {}
        for name in names:
            if name in data:
                array, wanted = data[name], DIMENSIONS.get(name, ())
                if set(array.dims) == set(wanted):
                    array = array.transpose(*wanted)
                found[name] = array.values
        return found
