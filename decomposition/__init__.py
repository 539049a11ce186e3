"""Which step of a curvature approximation costs how much attribution quality?

Problem → chain (Hessian, GGN, block-diagonal GGN, EK-FAC, K-FAC) → spectra and scores →
shares of the steps → result tree → report.
"""

from importlib.metadata import PackageNotFoundError, version

from decomposition.attribution.influence import influence_scores
from decomposition.chain import build_chain, build_lattice
from decomposition.errors import DecompositionError
from decomposition.losses import CustomLoss
from decomposition.problem import Problem
from decomposition.recipe import Recipe
from decomposition.results import open_result
from decomposition.run import run
from decomposition.settings import Settings

try:
    __version__ = version("curvature-decomposition")
except PackageNotFoundError:  # imported from a source tree that is not installed
    __version__ = "not installed"

__all__ = [
    "CustomLoss",
    "DecompositionError",
    "Problem",
    "Recipe",
    "Settings",
    "__version__",
    "build_chain",
    "build_lattice",
    "influence_scores",
    "open_result",
    "run",
]
