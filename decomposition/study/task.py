"""One independent piece of a study, and the name of its result.

A result is stored under the hash of everything that determines it: the configuration, the source
of the code that computes it, and the versions of the libraries beneath. Equal key, equal result;
so a change of either never meets a stale one.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, final

import xarray as xr

from decomposition.errors import StudyError
from decomposition.source import source_hash

LIBRARIES = ("torch", "numpy", "scipy", "curvature-decomposition")
"""Distributions whose version can change a number."""


class Task(ABC):
    """A piece of a study; subclasses are frozen dataclasses that can be pickled."""

    kind: ClassVar[str]
    """What is computed, in one word: ``retrain``, ``cell``."""
    stage: ClassVar[int]
    """Tasks of a lower stage are all finished before those of a higher one start."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name for people: ``digits 64-16-10, epoch 100``."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything that determines the result, in values that JSON can hold."""

    @abstractmethod
    def code(self) -> tuple[str, ...]:
        """The parts of the package that compute it, for ``decomposition.source.source_hash``."""

    @abstractmethod
    def seconds(self) -> float:
        """Predicted processor seconds on one thread."""

    @abstractmethod
    def memory(self) -> int:
        """Predicted peak memory of the process that computes it, in bytes."""

    @abstractmethod
    def compute(self, store: Path, threads: int) -> xr.DataTree:
        """The result, on ``threads`` threads; parts of it may be kept in ``store / "bank"``.

        Equal for every ``threads`` as far as results of an interrupted study are to be equal to
        those of an undisturbed one.
        """

    @final
    def key(self) -> str:
        """SHA-256 over kind, configuration, source of ``code()`` and versions of ``LIBRARIES``.

        Raises:
            StudyError: ``config()`` holds something that JSON cannot.
            FileNotFoundError: ``code()`` names a part that the package does not have.
        """
        identity = {
            "kind": self.kind,
            "config": self.config(),
            "source": source_hash(*self.code()),
            "versions": {name: _version(name) for name in LIBRARIES},
        }
        try:
            text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StudyError(
                f"the configuration of task {self.label!r} cannot be named: {error}; give "
                "config() strings, finite numbers, booleans, None, lists and dicts of these"
            ) from error
        return hashlib.sha256(text.encode()).hexdigest()


@cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
