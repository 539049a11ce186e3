"""Which step of a curvature approximation costs how much attribution quality?

Problem → chain (Hessian, GGN, block-diagonal GGN, EK-FAC, K-FAC) → spectra and scores →
shares of the steps → result tree → report.

Names are imported when they are first used, so that a command can handle signals before PyTorch
has been loaded.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decomposition.chain import build_chain, build_lattice
    from decomposition.chain.rungs import EKFAC, KFAC
    from decomposition.curvature import Curvature
    from decomposition.errors import DecompositionError
    from decomposition.losses import CustomLoss
    from decomposition.problem import Problem
    from decomposition.recipe import Recipe
    from decomposition.results import open_result
    from decomposition.retraining import read_bank
    from decomposition.run import run
    from decomposition.scores.gradients import influence_scores
    from decomposition.settings import Settings
    from decomposition.study import Study

    __version__: str

_HOMES = {
    "EKFAC": "chain.rungs",
    "KFAC": "chain.rungs",
    "Curvature": "curvature",
    "CustomLoss": "losses",
    "DecompositionError": "errors",
    "Problem": "problem",
    "Recipe": "recipe",
    "Settings": "settings",
    "Study": "study",
    "build_chain": "chain",
    "build_lattice": "chain",
    "influence_scores": "scores.gradients",
    "open_result": "results",
    "read_bank": "retraining",
    "run": "run",
}
"""Name → module that defines it."""

__all__ = [
    "EKFAC",
    "KFAC",
    "Curvature",
    "CustomLoss",
    "DecompositionError",
    "Problem",
    "Recipe",
    "Settings",
    "Study",
    "__version__",
    "build_chain",
    "build_lattice",
    "influence_scores",
    "open_result",
    "read_bank",
    "run",
]


class _Package(ModuleType):
    """Keeps the import of the module ``run`` from hiding the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(import_module(f"decomposition.{_HOMES[name]}"), name)
    elif name == "__version__":
        value = _version()
    elif not name.startswith("_") and find_spec(f"decomposition.{name}") is not None:
        value = import_module(f"decomposition.{name}")
    else:
        raise AttributeError(f"module 'decomposition' has no attribute {name!r}")
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("curvature-decomposition")
    except PackageNotFoundError:  # imported from a source tree that is not installed
        return "not installed"
