"""Arrays by name from a NumPy archive or a netCDF-4 file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from decomposition.array_files import (
    ArrayFileError,
    check_file,
    native,
    open_tree,
    read_archive,
    reason_of,
)
from decomposition.errors import DecompositionError, ResultFileError
from decomposition.results.digest import DIGEST
from decomposition.results.read import load_tree

ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
DIMENSIONS = {
    "masks": ("mask", "train"),
    "outputs": ("mask", "repeat", "query", "output"),
    "losses": ("mask", "repeat", "query"),
    "second_outputs": ("second_mask", "query", "output"),
    "second_losses": ("second_mask", "query"),
}
"""Where a netCDF file has these names of dimensions, their order in the file does not matter."""

CODED = {"scale_factor", "add_offset", "_Unsigned"}
"""Attributes of netCDF by which the numbers that are meant are not those that are stored."""


class BankFileError(DecompositionError, ValueError):
    """A supplied bank cannot be read, or does not fit the problem."""


def read_arrays(
    path: Path, required: Sequence[str], optional: Sequence[str]
) -> dict[str, np.ndarray]:
    """The arrays of these names that the file holds.

    Raises:
        BankFileError: the file is absent, neither NPZ nor netCDF-4, or damaged, or a required
            array is not there.
    """
    names = (*required, *optional)
    try:
        check_file(path)
        with path.open("rb") as stream:
            start = stream.read(len(HDF5))
    except (ArrayFileError, OSError) as error:
        raise BankFileError(f"the bank {path} cannot be read: {error}") from error
    try:
        if start[: len(ZIP)] == ZIP:
            found = read_archive(path, names).arrays
        elif start == HDF5:
            found = _from_netcdf(path, names)
        else:
            raise BankFileError(
                f"{path} is neither a NumPy archive (.npz) nor netCDF-4: see docs/supplied_bank.md"
            )
    except (ArrayFileError, ResultFileError) as error:
        raise BankFileError(
            f"{path} is damaged, or holds Python objects or coded numbers: {error}"
        ) from error
    absent = [name for name in required if name not in found]
    if absent:
        raise BankFileError(
            f"{path} holds no array {', '.join(absent)} (it holds {', '.join(found) or 'none'} of "
            "a bank's): see docs/supplied_bank.md"
        )
    return found


def _from_netcdf(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        # numbers as they are stored: nothing scaled, no fill values, no times
        with open_tree(path, mask_and_scale=False, decode_times=False) as tree:
            if DIGEST in tree.attrs:
                load_tree(path, "make it again")  # for its check
            data = (tree["bank"] if "bank" in tree.children else tree).to_dataset()
            return {name: _variable(data[name], name) for name in names if name in data}
    except DecompositionError:
        raise
    except Exception as error:  # HDF5, h5netcdf and xarray raise a dozen types between them
        raise ArrayFileError(reason_of(error)) from error


def _variable(array: xr.DataArray, name: str) -> np.ndarray:
    """The numbers of a variable, its dimensions in our order."""
    about = {**array.encoding, **array.attrs}
    odd = sorted(CODED & about.keys()) + (["units"] if " since " in f"{about.get('units')}" else [])
    if odd:
        raise ArrayFileError(
            f"{name} has the attribute {odd[0]}: store plain numbers, not coded ones"
        )
    wanted = DIMENSIONS.get(name, ())
    if set(array.dims) == set(wanted):
        array = array.transpose(*wanted)
    values = native(array.values)
    fill = np.asarray(about.get("_FillValue", about.get("missing_value", np.nan)))
    if values.dtype.kind in "iuf" and fill.dtype.kind in "iuf" and np.isin(values, fill).any():
        raise ArrayFileError(f"{name} has missing values: some equal its fill value, {fill}")
    return values
