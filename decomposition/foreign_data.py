"""Data that come as something else than tensors: converted, or refused with what to give.

A ``torch.utils.data.Dataset`` is read once, row by row, into tensors; a ``DataLoader`` batch by
batch, with its own ``collate_fn``. Row i of what comes out is row i of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    default_collate,
)

from decomposition.checks import shown
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


TARGETS = ("labels", "label", "targets", "target", "y")
"""Names that the target of a sample may have where the sample is a dict."""
READ_TWICE = 16
"""Rows of a data set that are read twice: a random transform gives them other values."""


def from_dataset(data: Dataset | DataLoader, where: str) -> tuple[object, object]:
    """Inputs and targets of all rows of a map-style data set, or of a loader that keeps its order.

    Samples are pairs (x, y), where x is a tensor or a tuple or dict of them, or dicts with one
    target (``TARGETS``) beside the named arguments of the forward pass.

    Raises:
        ProblemError: rows without numbers or in random order, that cannot be read, that differ from
            one reading to the next, or whose shapes differ.
    """
    dataset = data.dataset if isinstance(data, DataLoader) else data
    name = type(dataset).__name__
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ProblemError(
            f"{where} is a {name}, a stream: example i must be the same row in training, masks and "
            "scores; give a map-style data set (with __getitem__ and __len__), or tensors"
        )
    if isinstance(data, DataLoader):
        _check_loader(data, where)
    rows = len(dataset)  # type: ignore[arg-type]
    if not rows:
        raise ProblemError(f"{where} is empty: {name} has no rows")
    _check_steady(dataset, rows, where)
    batches = data if isinstance(data, DataLoader) else _collated(dataset, rows, where)
    parts = [_pair(batch, where) for batch in _batches(batches, where)]
    return _joined([x for x, _ in parts], where), _joined([y for _, y in parts], where)


def _check_loader(loader: DataLoader, where: str) -> None:
    if not isinstance(loader.sampler, SequentialSampler) or loader.batch_sampler is None:
        raise ProblemError(
            f"{where} is a DataLoader that shuffles, or samples in an order of its own: give its "
            "data set (loader.dataset), or a loader with shuffle=False; the order of training is "
            "the recipe's (Recipe.batch_size, Recipe.seed)"
        )
    if loader.drop_last:
        raise ProblemError(
            f"{where} is a DataLoader that drops its last batch, and rows with it: use "
            "drop_last=False, or give loader.dataset; training leaves it out with "
            "Recipe(drop_last=True)"
        )


def _read(dataset: Any, row: int, where: str) -> object:
    try:
        return dataset[row]
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise ProblemError(
            f"{where} row {row} of {type(dataset).__name__} cannot be read: "
            f"{type(error).__name__}: {said}"
        ) from error


def _check_steady(dataset: Any, rows: int, where: str) -> None:
    """Raise ProblemError if a row changes from one reading to the next."""
    for row in range(0, rows, max(1, rows // READ_TWICE)):
        first, again = (list(_leaves(_read(dataset, row, where))) for _ in range(2))
        same = len(first) == len(again) and all(map(_equal, first, again))
        if not same:
            raise ProblemError(
                f"{where} row {row} of {type(dataset).__name__} differs from one reading to the "
                "next (random transforms?): scores are of fixed examples; leave augmentation out, "
                "or give the tensors of one draw"
            )


def _leaves(sample: object) -> Iterator[object]:
    if isinstance(sample, Mapping):
        sample = list(sample.values())
    if isinstance(sample, tuple | list):
        for part in sample:
            yield from _leaves(part)
    else:
        yield sample


def _equal(a: object, b: object) -> bool:
    try:
        return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)
    except TypeError:  # text and other objects know no NaN
        return bool(a == b)


def _collated(dataset: Any, rows: int, where: str) -> Iterator[object]:
    """All rows as one batch, as a loader's default puts them together."""
    samples = [_read(dataset, row, where) for row in range(rows)]
    shapes = [[tuple(np.shape(leaf)) for leaf in _leaves(one)] for one in samples]  # type: ignore[arg-type]
    for row, found in enumerate(shapes):
        if found != shapes[0]:
            raise ProblemError(
                f"{where} row {row} of {type(dataset).__name__} has other shapes than row 0: "
                f"{_listed(found)} against {_listed(shapes[0])}; bring all rows to one shape, or "
                "give a DataLoader whose collate_fn pads all of them to one length"
            )
    yield from _batches([samples], where, default_collate)


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _batches(batches: Any, where: str, collate: Any = None) -> Iterator[object]:
    """What a loader gives, its errors with the place where they happened."""
    try:
        for batch in batches:
            yield batch if collate is None else collate(batch)
    except ProblemError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise ProblemError(
            f"{where}: rows of the data set cannot be put together: {type(error).__name__}: "
            f"{said}; let the data set return tensors of one shape, or numbers"
        ) from error


def _pair(batch: object, where: str) -> tuple[object, object]:
    """Inputs and targets of a batch."""
    if isinstance(batch, Mapping):
        targets = [name for name in TARGETS if name in batch]
        inputs = {name: part for name, part in batch.items() if name not in targets}
        if len(targets) != 1 or not inputs:
            raise ProblemError(
                f"{where}: samples with the keys {', '.join(map(str, batch))} must have one of "
                f"{', '.join(TARGETS)} for the target, and inputs by the names of the forward "
                "pass's arguments beside it"
            )
        return inputs, batch[targets[0]]
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    held = f"{len(batch)} parts" if isinstance(batch, tuple | list) else shown(type(batch).__name__)
    raise ProblemError(
        f"{where}: a sample must be a pair (inputs, target) or a dict, got {held}; several inputs "
        "go together, ((x1, x2), y)"
    )


def _joined(parts: list[Any], where: str) -> object:
    """Batches one after the other, part by part."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: _joined([one[name] for one in parts], where) for name in first}
    if isinstance(first, tuple | list):
        return tuple(_joined([one[i] for one in parts], where) for i in range(len(first)))
    if len(parts) == 1 or not isinstance(first, Tensor):
        return first
    if len({part.shape[1:] for part in parts}) > 1:
        raise ProblemError(
            f"{where}: batches of the loader have other shapes, "
            f"{_listed([tuple(part.shape) for part in parts])}: let collate_fn pad all rows to one "
            "length, not to the longest of their batch"
        )
    return torch.cat(parts)


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
        return ": a data set holds inputs and targets, and is given as it is, train=dataset"
    if hasattr(value, "to_numpy"):
        return ": give its .to_numpy()"
    if isinstance(value, str | Mapping):
        return ""
    if isinstance(value, Number):
        return ": give torch.tensor(x) of a list, and of a single number a row for each example"
    if isinstance(value, list | tuple):
        return ": a list of numbers, or of rows of them, becomes one tensor by torch.tensor(x)"
    return ""
