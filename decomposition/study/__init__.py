"""A study: a grid of independent tasks, computed once each, on one machine or a cluster."""

from decomposition.study.cell import Cell
from decomposition.study.command import Execution, Preset, Scale, main
from decomposition.study.design import PAPER_RECIPE, OneNetwork, Study, architectures
from decomposition.study.execute import run_study
from decomposition.study.executors import Backend

__all__ = [
    "PAPER_RECIPE",
    "Backend",
    "Cell",
    "Execution",
    "OneNetwork",
    "Preset",
    "Scale",
    "Study",
    "architectures",
    "main",
    "run_study",
]
