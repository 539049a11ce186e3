"""Data that come as something else than tensors: converted, or refused with what to give."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from decomposition.errors import ProblemError

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
"""Kinds that torch stores, and hardly computes with."""
KINDS = {
    "O": "objects: give numbers, x.astype(float), or x.astype(int) for labels",
    "U": "text: number its values, numpy.unique(x, return_inverse=True)[1]",
    "S": "text: number its values, numpy.unique(x, return_inverse=True)[1]",
    "T": "text: number its values, numpy.unique(x, return_inverse=True)[1]",
    "M": "dates: count from the first, (x - x.min()) / numpy.timedelta64(1, 's')",
    "m": "durations: count in a unit, x / numpy.timedelta64(1, 's')",
    "V": "records: make columns of their fields, numpy.lib.recfunctions.structured_to_unstructured",
    "c": "complex: give real and imaginary parts",
}
"""Arrays that no tensor holds, by NumPy's letter for their kind, and the way out."""


def from_array(array: np.ndarray, what: str) -> Tensor:
    """A copy as a tensor, whatever its layout and byte order.

    Raises:
        ProblemError: values are masked, or of a kind that no tensor holds.
    """
    if np.ma.is_masked(array):
        raise ProblemError(
            f"{what} have {np.ma.count_masked(array):,} masked values: drop or impute them, as in "
            "x.filled(0.0)"
        )
    plain = np.asarray(array)
    try:
        return torch.from_numpy(plain.astype(plain.dtype.newbyteorder("="), copy=True))
    except TypeError:
        kind = KINDS.get(plain.dtype.kind, f"{plain.dtype}: give x.astype('float64')")
        raise ProblemError(f"{what} cannot be a tensor: its values are {kind}") from None


def signed(values: Tensor, what: str) -> Tensor:
    """Unsigned numbers of more than a byte as int64.

    Raises:
        ProblemError: a number is beyond 2^63.
    """
    if values.dtype not in UNSIGNED:
        return values
    found = values.long()
    if bool((found < 0).any()):
        raise ProblemError(f"{what} hold whole numbers of 2^63 and more: number them from 0")
    return found


def way_out(value: object) -> str:
    """What to give in place of data of this type, as the end of a message."""
    if value is None:
        return ": an input that is None is left out of the tuple or dict"
    if isinstance(value, Dataset | DataLoader):
        return (
            ": give its tensors, next(iter(torch.utils.data.DataLoader(dataset, "
            "batch_size=len(dataset))))"
        )
    if hasattr(value, "to_numpy"):
        return ": give its .to_numpy()"
    if isinstance(value, str | Mapping):
        return ""
    if isinstance(value, Number):
        return ": give torch.tensor(x) of a list, and of a single number a row for each example"
    if isinstance(value, list | tuple):
        return ": a list of numbers, or of rows of them, becomes one tensor by torch.tensor(x)"
    return ""
