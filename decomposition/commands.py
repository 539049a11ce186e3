"""The commands of ``decompose`` with their options: what ``--help`` teaches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from decomposition.settings import Settings
from decomposition.spectrum.command import Inspection


@dataclass(frozen=True)
class Choices(Settings):
    """What to compute."""

    def __post_init__(self) -> None:
        """Check nothing yet: a wrong value is our message, not one of the argument parser."""

    def checked(self) -> Settings:
        """The settings themselves.

        Raises:
            DecompositionError: a value is outside its range.
        """
        return Settings(**asdict(self))


@dataclass(frozen=True)
class Run:
    """Decompose a problem: train, retrain on subsets, build every rung, score, report.

    PROBLEM is a built-in name, a data file (idx:FOLDER, csv:FILE?target=COLUMN, npz:FILE; see
    `decompose problems`) or file.py:function, where the function returns a decomposition.Problem.
    Writes result.nc and report.html into --out, and keeps the retrained models' outputs there:
    stop it at any time, the same command resumes. Ends with what replacing H by K-FAC costs, the
    step to blame, which rung to use, what would resolve more, and where the report is.

    Examples:
        decompose run digits --out out/
        decompose run digits --quick --out first-look/
        decompose run my_problem.py:make_problem --masks 500 --out mine/
        decompose run digits --randomness independent --masks 100 --repeats 10 --out independent/
    """

    problem: tyro.conf.Positional[str]
    """Built-in name, data file, or file.py:function; options as 'NAME?option=value'."""
    out: str
    """Folder for result.nc, report.html and the bank."""
    settings: tyro.conf.OmitArgPrefixes[Choices]
    """What to compute."""
    quick: bool = False
    """A first look in half a minute: 100 masks, no matrix norms, and a smaller network for the
    built-in problems. Its numbers are not those of the full study."""
    problem_seed: int = 0
    """Seed of a built-in problem: split, initialisation, order of examples."""
    scores: tuple[str, ...] = ()
    """Scores made elsewhere, name=FILE: arrays (queries, train) in .npy, .npz, .nc or .safetensors,
    positive where removing the training example raises the query's loss; only ranks count."""
    json: bool = False
    """Print verdict, levels, shares and recommendation as JSON, all else to the standard error."""
    bank: Path | None = None
    """A bank of models retrained elsewhere (.npz or netCDF, see docs/supplied_bank.md): the truth,
    in place of retraining."""


@dataclass(frozen=True)
class Report:
    """Write the report again from result.nc, or a study's from study.nc, alone.

    Several results give one page side by side.

    Examples:
        decompose report out/
        decompose report digits/ mnist/ mine/ --out comparison/
        decompose report out/ --format md
    """

    results: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="OUT...")]]
    """Folders that hold result.nc, or the files themselves."""
    format: Literal["html", "md"] = "html"
    """One self-contained page, or Markdown with its figures in a folder beside it."""
    out: str | None = None
    """Folder to write to; default that of the first result."""
    json: bool = False
    """Print verdict, levels, shares and recommendation as JSON too."""


@dataclass(frozen=True)
class Open:
    """Show a report in the browser.

    Prints where the page lies, so that it can be copied or opened elsewhere.

    Examples:
        decompose open out/
        decompose open grid/
    """

    result: tyro.conf.Positional[Path]
    """Folder that holds a report, or the page itself."""


@dataclass(frozen=True)
class Spectrum:
    """Inspect eigen-spectra: of a problem's curvatures, or from a result's eigenvalues.

    Writes spectrum.nc, tables/*.csv and figures/*.svg and *.png into --out. A result holds no
    eigenvectors: overlaps, bands and perturbation bounds need the problem.

    Examples:
        decompose spectrum digits --out spectra/
        decompose spectrum digits --quick --checkpoints 0 1 2 5 10 20 --out spectra/
        decompose spectrum my_problem.py:make_problem --rungs hessian kfac --blocks 0 --out spectra/
        decompose spectrum out/result.nc
    """

    source: tyro.conf.Positional[str]
    """Built-in problem, data file, file.py:function, or a result (the file or its folder)."""
    inspection: tyro.conf.OmitArgPrefixes[Inspection]
    """What to compute."""
    out: str | None = None
    """Folder for the files; default `spectrum` beside the result, or in the current folder."""
    quick: bool = False
    """A smaller network for the built-in problems."""
    problem_seed: int = 0
    """Seed of a built-in problem."""


@dataclass(frozen=True)
class Plan:
    """Say how each rung would be computed, in which time and memory, before anything runs.

    Small models get dense matrices; larger ones the dual Gram matrix for the GGN, Kronecker
    factors for EK-FAC and K-FAC, and iterative solves for the Hessian.

    Examples:
        decompose plan digits
        decompose plan my_problem.py:make_problem --memory 8 --device cuda --masks 500
    """

    problem: tyro.conf.Positional[str]
    """Built-in problem, data file, or file.py:function."""
    settings: tyro.conf.OmitArgPrefixes[Choices]
    """Settings of the run that is planned."""
    quick: bool = False
    """Plan what `decompose run --quick` would do."""
    problem_seed: int = 0
    """Seed of a built-in problem."""


@dataclass(frozen=True)
class Problems:
    """List the built-in problems, the formats of data files, and their options."""


@dataclass(frozen=True)
class Study:
    """See how far a study is: what is done, running, failed or missing, and the time left.

    Examples:
        decompose study status grid/
        decompose study status grid/ --all
    """

    action: tyro.conf.Positional[Literal["status"]]
    """What to do."""
    out: tyro.conf.Positional[Path]
    """The study's folder."""
    all: bool = False
    """Name every task, not just the first of each state."""
