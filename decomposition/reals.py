"""Arrays of real numbers as users give them: read as float64, or refused."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DecompositionError

REAL_KINDS = "biuf"
"""NumPy's letters for booleans, integers and floating-point numbers."""


def real_tensor(value: object, name: str) -> Float[Tensor, " ..."]:
    """An array as a float64 tensor on its own device, not copied if it is one already.

    Args:
        value: a tensor, an array, or what NumPy makes one of.
        name: what it is called in an error.

    Raises:
        DecompositionError: it is no array of real numbers.
    """
    if isinstance(value, Tensor):
        if value.is_complex() or value.layout != torch.strided or value.is_nested or value.is_meta:
            kind = "a meta" if value.is_meta else "a nested" if value.is_nested else "a"
            raise _refused(name, f"{kind} tensor of {value.dtype}, {value.layout}")
        return value.detach().to(torch.float64)
    try:
        if isinstance(value, np.ma.MaskedArray):
            value = np.ma.filled(value.astype(np.float64), np.nan)
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refused(name, f"{type(value).__name__} ({error})") from error
    if array.dtype.kind not in REAL_KINDS:
        shown = repr(value) if value is None or isinstance(value, str) else type(value).__name__
        raise _refused(name, f"{shown:.60} of {array.dtype}")
    with np.errstate(over="ignore"):  # of long doubles: infinite, and refused as such
        array = np.require(array, np.float64, ["C", "W"])
    return torch.from_numpy(array)


def check_finite(values: Tensor, otherwise: str) -> None:
    """Raise DecompositionError unless all is finite: what it is ``otherwise``, and where."""
    if all_finite(values):
        return
    place = torch.nonzero(~torch.isfinite(values))[0].tolist()
    where = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column"), place, strict=False))
    raise DecompositionError(f"{otherwise}: {float(values[tuple(place)])} in {where}")


def all_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or infinite, without a second array of the same size."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _refused(name: str, given: str) -> DecompositionError:
    return DecompositionError(
        f"{name} must be a dense array of real numbers, got {given}; of complex numbers pass the "
        "real part (.real)"
    )
