"""A bank that was made elsewhere, read from a NumPy or netCDF file; see docs/supplied_bank.md.

Shapes: M masks, R repeats, N training examples, Q queries, C outputs, of which there are C·T
where a model predicts at T positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from decomposition.array_files import (
    ArrayFileError,
    check_file,
    native,
    open_tree,
    read_archive,
    reason_of,
)
from decomposition.errors import DecompositionError, ProblemError, ResultFileError
from decomposition.inputs import apply, double
from decomposition.linalg import to_numpy
from decomposition.problem import Problem
from decomposition.results.digest import DIGEST
from decomposition.results.read import load_tree
from decomposition.retraining import distinct
from decomposition.retraining.bank import Bank
from decomposition.retraining.plan import BankPlan
from decomposition.targets.functions import Measure

OUTPUTS = ("outputs", "second_outputs")
LOSSES = ("losses", "second_losses")
SECOND = (OUTPUTS[1], LOSSES[1])
ROUNDING = 1e-6
"""What a loss of zero may come out below it, relative to the largest."""
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


@dataclass(frozen=True, eq=False)
class SuppliedBank(Bank):
    """What models that someone else retrained answer to the queries, or only their losses."""

    source: str = "memory"
    """The file's name."""
    losses: Float[np.ndarray, "M R Q"] | None = None
    """Given instead of outputs."""
    second_losses: Float[np.ndarray, "M2 Q"] | None = None
    """Given instead of second outputs."""

    @property
    def answers(self) -> Float[np.ndarray, "M R Q *C"]:
        """As ``Bank.answers``."""
        return super().answers if self.losses is None else self.losses

    def measurements(
        self, problem: Problem, function: Measure = "loss"
    ) -> Float[np.ndarray, "M R Q"]:
        """As ``Bank.measurements``; of losses, the loss alone."""
        return (
            super().measurements(problem, function)
            if self.losses is None
            else self._loss(self.losses, function)
        )

    def second_measurements(
        self, problem: Problem, function: Measure = "loss"
    ) -> Float[np.ndarray, "M2 Q"] | None:
        """As ``Bank.second_measurements``."""
        if self.second_losses is not None:
            return self._loss(self.second_losses, function)
        return super().second_measurements(problem, function)

    def _loss(self, losses: np.ndarray, function: Measure) -> np.ndarray:
        if function != "loss":
            raise BankFileError(
                f"{self.source} holds losses, from which no {function} follows: give outputs, or "
                "use target loss"
            )
        return losses.astype(np.float64)


def read_bank(path: str | Path, problem: Problem) -> SuppliedBank:
    """The bank in a ``.npz`` or netCDF-4 file, checked against the problem.

    Arrays: masks (M, N), and outputs (M, R, Q, C) or losses (M, R, Q); optionally
    second_outputs (M₂, Q, C) or second_losses (M₂, Q), and targets, those of the queries. Of a
    result of this package, its group /bank is read.

    Raises:
        BankFileError: the file is absent, foreign or damaged; an array is absent, does not fit
            the problem, or holds what it must not.
    """
    path = Path(path)
    arrays = _read_arrays(path, ("masks",), (*OUTPUTS, *LOSSES, "targets"))
    source = path.name
    masks = _masks(arrays["masks"], problem, source)
    answers = _answers(arrays, len(masks), problem, source)
    _check_targets(arrays.get("targets"), problem, source)
    values = next(iter(answers.values()))
    second = next((answers[name] for name in SECOND if name in answers), None)
    plan = BankPlan(
        alpha=float(masks.mean()),
        masks=len(masks),
        repeats=values.shape[1],
        second_order_masks=0 if second is None else len(second),
    )
    empty = dict.fromkeys((*OUTPUTS, *LOSSES))
    held = {"plan": plan, "masks": masks, "base_outputs": _base_outputs(problem), "source": source}
    return SuppliedBank(**{**empty, **answers, **held})


def _answers(
    arrays: Mapping[str, np.ndarray], masks: int, problem: Problem, source: str
) -> dict[str, np.ndarray]:
    """The outputs or losses of a bank, and those of a second order if there are any, checked."""
    names = OUTPUTS if "outputs" in arrays else LOSSES
    if names[0] not in arrays:
        raise BankFileError(f"{source} holds neither outputs (M, R, Q, C) nor losses (M, R, Q)")
    width = (problem.num_outputs,) if names is OUTPUTS else ()
    positions = len(problem.output_shape) - 1 if names is OUTPUTS else 0
    found = {}
    for name, leading in zip(names, ((masks, None), (None,)), strict=True):
        if name not in arrays:
            continue
        shape = (*leading, problem.num_queries, *width)
        axes = len(leading) + 2
        rows = _in_rows(np.asarray(arrays[name]), positions, axes)
        found[name] = _numbers(rows, f"{source}: {name}", shape)
        if names is LOSSES:
            _check_sign(found[name], f"{source}: {name}", problem)
    second = found.get(names[1])
    if second is not None and not 2 <= len(second) <= masks:
        raise BankFileError(
            f"{source}: {names[1]} belong to the first masks, 2 … {masks} of them, got "
            f"{len(second)}"
        )
    return found


def as_supplied(bank: Bank | str | Path, problem: Problem) -> SuppliedBank:
    """A bank from a file or from memory, with what the problem's model answers as the base.

    Raises:
        BankFileError: it does not fit the problem.
    """
    if isinstance(bank, str | Path):
        return read_bank(bank, problem)
    if isinstance(bank, SuppliedBank):
        supplied = bank
    elif isinstance(bank, Bank):
        held = (bank.plan, bank.masks, bank.outputs, bank.second_outputs, bank.base_outputs)
        supplied = SuppliedBank(*held)
    else:
        raise BankFileError(f"bank must be a file or a Bank, got {type(bank).__name__}")
    masks = _masks(np.asarray(supplied.masks), problem, supplied.source)
    given = {name: getattr(supplied, name) for name in (*OUTPUTS, *LOSSES)}
    given = {name: array for name, array in given.items() if array is not None}
    held = _answers(given, len(masks), problem, supplied.source)
    return replace(supplied, masks=masks, base_outputs=_base_outputs(problem), **held)


def _masks(masks: np.ndarray, problem: Problem, source: str) -> np.ndarray:
    if masks.ndim != 2 or masks.shape[1] != problem.num_examples:
        raise BankFileError(
            f"{source}: masks must be (M, N) with N = {problem.num_examples} training examples, "
            f"got {masks.shape}"
        )
    wrong = np.argwhere((masks != 0) & (masks != 1)) if masks.dtype.kind in "buif" else [(0, 0)]
    if len(wrong):
        row, column = map(int, wrong[0])
        raise BankFileError(
            f"{source}: masks must be 0 or 1 (True: the example was trained on), got "
            f"{masks[row, column]} at mask {row}, example {column}"
        )
    masks = masks.astype(bool)
    found = distinct.count(masks) if len(masks) else 0
    if found < distinct.LEAST:
        raise BankFileError(
            f"{source}: {distinct.too_few(found, len(masks))}. Add models that were trained on "
            "other subsets"
        )
    empty = np.flatnonzero(~masks.any(1))
    if len(empty):
        raise BankFileError(f"{source}: mask {empty[0]} keeps no example at all")
    return masks


def _numbers(values: np.ndarray, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    fits = values.ndim == len(shape) and all(
        want in (None, got) and got for want, got in zip(shape, values.shape, strict=True)
    )
    if not fits:
        letters = ("M", "R", "Q", "C") if shape[0] is not None else ("M2", "Q", "C")
        wanted = ", ".join(
            letter if size is None else f"{letter} = {size}"
            for letter, size in zip(letters, shape, strict=False)
        )
        raise BankFileError(f"{name} must be ({wanted}), got {values.shape}")
    if values.dtype.kind != "f":
        raise BankFileError(f"{name} must be floating point, got {values.dtype}")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        place = tuple(map(int, bad[0]))
        raise BankFileError(f"{name} is {values[place]} at {place}: leave that mask out")
    return native(values)


def _check_sign(losses: np.ndarray, name: str, problem: Problem) -> None:
    """Raise BankFileError at a loss that the problem's loss function cannot have."""
    function = problem.query_loss
    below = np.argwhere(losses < -ROUNDING * max(1.0, float(np.abs(losses).max())))
    if function.nonnegative and len(below):
        place = tuple(map(int, below[0]))
        raise BankFileError(
            f"{name} is {losses[place]:g} at {place}, and {function.name} is never negative: give "
            "losses, not log-likelihoods; a loss that can be negative is a CustomLoss"
        )


def _in_rows(outputs: np.ndarray, positions: int, axes: int) -> np.ndarray:
    """Outputs (…, C, d1, …) as models return them in rows (…, C·T) of ``axes`` axes."""
    if not positions or outputs.ndim != axes + positions:
        return outputs
    return outputs.reshape(*outputs.shape[: axes - 1], -1)


def _check_targets(targets: np.ndarray | None, problem: Problem, source: str) -> None:
    own = to_numpy(problem.query[1])
    if targets is None:
        return
    if targets.dtype.kind not in "biuf":
        raise BankFileError(
            f"{source}: targets must be numbers, those of the problem's queries, got "
            f"{targets.dtype}: save class labels as whole numbers, or leave targets out"
        )
    if own.ndim > 2:  # a result keeps them in one row a query
        own = own.reshape(len(own), -1)
        targets = targets.reshape(len(targets), -1)
    if targets.shape != own.shape or not np.allclose(targets, own, rtol=1e-5):
        raise BankFileError(
            f"{source}: targets are not those of the problem's queries: the bank is of other "
            "queries, or of another order"
        )


@torch.no_grad()
def _base_outputs(problem: Problem) -> Float[np.ndarray, "Q C"]:
    try:
        return apply(problem.double_model(), double(problem.query[0])).cpu().numpy()
    except DecompositionError:
        raise
    except Exception as error:
        raise ProblemError(f"the model cannot be applied to the queries: {error}") from error


def _read_arrays(
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
