"""Per-example gradients of the training set on disk, for many questions without another sweep.

The N × P matrix G of training gradients is written once, some examples at a time, into a NumPy
array file that is read through a memory map: float32 takes 4 N P bytes (6 GB for 1,600 examples
of a million parameters) and rounds every entry by 6·10⁻⁸ of itself; float64 keeps it. A small
file beside it has the checksums of the finished chunks; killed at any time, writing goes on after
them. The files are named after what determines the gradients: problem, parameters, code, precision.

What is asked is v ↦ G v: one pass over the file, whatever the number of columns. Scores of a few
rungs are cheaper without: ``StreamedGradients`` makes each gradient once a rung.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from decomposition.atomic import remove_abandoned, unfinished, write_atomically
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.errors import DecompositionError, StoreError
from decomposition.inputs import take
from decomposition.linalg import matmul
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.resources import size_text
from decomposition.retraining.fingerprint import study_fingerprint
from decomposition.retraining.plan import BankPlan
from decomposition.source import import_closure, source_hash

Precision = Literal["float32", "float64"]

CHUNK_NUMBERS = 2**25
"""Numbers in the gradients that are made, written and read together: 256 MB in float64."""
SOURCE = "curvature/jacobian.py"
"""The code behind a gradient, with all that it imports."""


class StoredGradients:
    """G (N × P) of a trained problem in a folder, written where it is not there yet.

    Args:
        problem: trained; gradients are those of the loss at its model's present parameters.
        folder: where the files lie, made if needed; several problems may share it.
        precision: of what is written.
        progress: show a bar while writing.

    Raises:
        DecompositionError: a precision other than float32 and float64.
        StoreError: the folder cannot be used, or has no space for what is missing.
    """

    def __init__(
        self,
        problem: Problem,
        folder: str | Path,
        precision: Precision = "float32",
        progress: bool = False,
    ) -> None:
        """Write what is missing."""
        if precision not in ("float32", "float64"):
            raise DecompositionError(
                f"gradients are kept in float32 or float64, not in {precision!r}"
            )
        self.shape = (problem.num_examples, problem.num_parameters)
        """N and P."""
        self.precision: Precision = precision
        self._problem, self._folder = problem, Path(folder)
        self._step = max(1, CHUNK_NUMBERS // problem.num_parameters)
        self._key = _key(problem, precision)
        self._checked: set[int] = set()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sums = self._finished()
            if len(self._sums) < len(self._chunks):
                self._write(progress)
            self._rows = np.lib.format.open_memmap(self.path, mode="r")
        except OSError as error:
            raise self._failure("used", error) from error

    @property
    def path(self) -> Path:
        """The array file: ``numpy.load(path, mmap_mode="r")`` reads it too."""
        return self._folder / f"gradients-{self._key[:24]}.npy"

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def rows(self, part: slice) -> Float[Tensor, "n P"]:
        """g_i of consecutive training examples, float64, on the problem's device.

        Raises:
            StoreError: the file is damaged.
        """
        start, stop, _ = part.indices(len(self))
        for number, chunk in enumerate(self._chunks):
            if chunk.start < stop and start < chunk.stop:
                self._check(number, chunk)
        return torch.from_numpy(self._rows[part].astype(np.float64)).to(self._problem.device)

    def along(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "k N"]:
        """g_i · v of every training example, as ``GradientSource.along``: (G v)ᵀ, in float64.

        Raises:
            DecompositionError: v is not (P, k).
            StoreError: the file is damaged.
        """
        if v.ndim != 2 or len(v) != self.shape[1]:
            raise DecompositionError(f"directions are ({self.shape[1]}, k), got {tuple(v.shape)}")
        return torch.cat([matmul(rows, v).T for rows in self.parts()], 1)

    def parts(self) -> Iterator[Float[Tensor, "n P"]]:
        """All rows, chunk by chunk."""
        yield from map(self.rows, self._chunks)

    def _check(self, number: int, part: slice) -> None:
        """Compare a chunk with its checksum when it is first met."""
        if number in self._checked:
            return
        if zlib.crc32(self._rows[part].data) != self._sums[number]:
            raise StoreError(
                f"{self.path} is damaged in rows {part.start} to {part.stop - 1}: delete "
                "it, and the same call writes it again"
            )
        self._checked.add(number)

    @property
    def _chunks(self) -> list[slice]:
        n = self.shape[0]
        return [slice(i, min(n, i + self._step)) for i in range(0, n, self._step)]

    @property
    def _record(self) -> Path:
        return self.path.with_suffix(".json")

    def _finished(self) -> list[int]:
        """Checksums of the chunks that are in the file, in order."""
        try:
            record = json.loads(self._record.read_bytes())
            fits = record["key"] == self._key and record["chunk"] == self._step
            sums = record["checksums"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return []  # none, or damaged: the gradients are made again
        known = isinstance(sums, list) and all(type(one) is int for one in sums)
        return sums if known and fits and len(sums) <= len(self._chunks) and self._whole() else []

    def _whole(self) -> bool:
        """Whether the array file is there, with the size and the header that it was made with."""
        try:
            with self.path.open("rb") as file:
                size, header = os.fstat(file.fileno()).st_size, self._header()
                return size == self._bytes() and file.read(len(header)) == header
        except FileNotFoundError:
            return False

    def _write(self, progress: bool) -> None:
        """The chunks after the finished ones; each is on the disk before it counts."""
        rows = self._file()
        x, y = self._problem.rows("train")
        total = len(self._chunks)
        with tqdm(
            total=total,
            initial=len(self._sums),
            desc="training gradients",
            unit="chunk",
            disable=not progress,
        ) as bar:
            for part in self._chunks[len(self._sums) :]:

                def some(inner: slice, part: slice = part) -> np.ndarray:
                    of = slice(part.start + inner.start, part.start + inner.stop)
                    found = per_example_gradients(self._problem, take(x, of), y[of])
                    return found.cpu().numpy().astype(rows.dtype)

                count = part.stop - part.start
                rows[part] = np.concatenate(list(shrinking(some, count, count)))
                rows.flush()
                self._sums.append(zlib.crc32(rows[part].data))
                content = {"key": self._key, "chunk": self._step, "checksums": self._sums}
                write_atomically(self._record, json.dumps(content).encode())
                bar.update()

    def _file(self) -> np.memmap:
        """The array file at its full size, with disk space behind every byte of it.

        Space is reserved and not only looked up: a memory map into a file without it ends the
        process when the disk is full.
        """
        remove_abandoned(self._folder)
        if not self._whole():
            self._check_space()
            new = unfinished(self.path)
            try:
                np.lib.format.open_memmap(new, "w+", np.dtype(self.precision), self.shape).flush()
                if hasattr(os, "posix_fallocate"):
                    with new.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, self._bytes())
                os.replace(new, self.path)
            finally:
                new.unlink(missing_ok=True)
        return np.lib.format.open_memmap(self.path, mode="r+")

    def _check_space(self) -> None:
        needed, free = self._bytes(), shutil.disk_usage(self._folder).free
        if needed > free:
            smaller = "" if self.precision == "float32" else "precision float32 takes half, "
            raise StoreError(
                f"the gradients of {self.shape[0]:,} examples and {self.shape[1]:,} parameters "
                f"take {size_text(needed)}, and {self._folder} has {size_text(free)} "
                f"left: {smaller}another folder may have more, and without a folder gradients are "
                "made when they are asked for"
            )

    def _bytes(self) -> int:
        """Size of the file: NumPy's header and the numbers."""
        numbers = self.shape[0] * self.shape[1]
        return len(self._header()) + numbers * np.dtype(self.precision).itemsize

    def _header(self) -> bytes:
        header = io.BytesIO()
        about = {
            "descr": np.dtype(self.precision).str,
            "fortran_order": False,
            "shape": self.shape,
        }
        np.lib.format.write_array_header_1_0(header, about)
        return header.getvalue()

    def _failure(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"the folder {self._folder} of training gradients cannot be {what} "
            f"({error.strerror or error}): free space or choose another folder; finished chunks "
            "are kept, and the same call goes on after them"
        )


def _key(problem: Problem, precision: str) -> str:
    """Hash of everything that determines the gradients."""
    theta = {name: value.detach() for name, value in problem.model.named_parameters()}
    facts = (
        study_fingerprint(problem, BankPlan(), theta),
        source_hash(*import_closure(SOURCE)),
        precision,
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
