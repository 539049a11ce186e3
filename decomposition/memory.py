"""Out of memory becomes a smaller chunk, with the same result to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from decomposition.errors import DecompositionError

Result = TypeVar("Result")
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""Of an allocation that failed, in the text of an error that something else was made of: PyTorch
interprets some forward derivatives as TorchScript, which keeps the text alone."""


class OutOfMemoryError(DecompositionError, MemoryError):
    """Not even the smallest piece of a computation fits into memory."""


def shrinking(
    work: Callable[[slice], Result],
    rows: int,
    chunk: int,
    least: int = 1,
    shrunk: Callable[[int], None] | None = None,
) -> Iterator[Result]:
    """``work`` of consecutive slices of ``rows``; out of memory becomes a smaller chunk.

    The slice that did not fit is tried again at half the length, and so are all that follow.
    ``work`` must leave nothing half done: what it adds to, it adds to in its last statement.
    ``work`` may use ``shrinking`` itself: if not even one row fits there, that counts as out of
    memory here, and the slice is halved.
    ``shrunk`` is told each smaller chunk, so that work that comes again need not fail again.

    Raises:
        OutOfMemoryError: not even ``least`` rows fit.
    """
    start, chunk = 0, max(least, min(chunk, rows))
    while start < rows:
        part = slice(start, min(start + chunk, rows))
        failure, told = "", False
        result: list[Result] = []
        try:
            result.append(work(part))
        except (MemoryError, RuntimeError, OutOfMemoryError) as error:
            if not out_of_memory(error):
                raise
            told = isinstance(error, OutOfMemoryError)
            failure = (str(error).splitlines() or ["out of memory"])[0]
        if failure:  # outside the handler, whose traceback would keep the tensors alive
            if chunk <= least:
                raise OutOfMemoryError(
                    failure
                    if told
                    else f"out of memory with {least} of {rows} rows at a time ({failure}): use a "
                    "smaller model, another device (--device), or free memory"
                )
            chunk = max(least, chunk // 2)
            if shrunk is not None:
                shrunk(chunk)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            continue
        yield result.pop()
        start = part.stop


def out_of_memory(error: BaseException) -> bool:
    """Whether this is an allocation that failed, on a device or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError | OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS)
