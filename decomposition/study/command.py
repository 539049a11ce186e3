"""The command line that the presets in ``analyses/`` share: predict, compute, combine, report."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import tyro

from decomposition import interruption
from decomposition.errors import DecompositionError
from decomposition.resources import bytes_of
from decomposition.settings import Settings
from decomposition.study.design import Study
from decomposition.study.execute import run_study
from decomposition.study.executors import Backend

TINY_MASKS, TINY_EXAMPLES, LEAVE_ONE_OUT_EXAMPLES = 24, 12, 200


@dataclass(frozen=True)
class Execution:
    """Where a study is kept and what computes it."""

    out: str
    """Folder for cells, study.nc and report.html. Stop at any time: the same command resumes, and
    several processes or machines may work on one folder."""
    tiny: bool = False
    """The same study in a minute: few masks, few epochs. To try things out."""
    backend: Literal["loky", "dask", "ray", "sequential"] = "loky"
    """What runs the cells: processes of this machine, a Dask cluster, or a Ray cluster."""
    address: str | None = None
    """Of the cluster's scheduler: tcp://host:8786 (Dask); auto or host:6379 (Ray)."""
    jobs: int | None = None
    """Cells at a time; default as many as cores and memory allow."""
    threads: int | None = None
    """Threads of each; default cores / jobs."""
    memory: float | None = None
    """GiB that the cells at work may use together; default three quarters of what is free."""
    dry_run: bool = False
    """Print the predicted time and memory, and stop."""


@dataclass(frozen=True)
class Scale:
    """How much is retrained in every cell."""

    masks: int | None = None
    """Subsets on which models are retrained; default 1,000 (shared) or 200 (independent)."""
    repeats: int | None = None
    """Retrainings of each subset; default 1 (shared) or 5 (independent)."""
    randomness: Literal["shared", "independent"] | None = None
    """What retrained models have in common with the base model; default shared; see `decompose run
    --help`."""
    alpha: float | None = None
    """Fraction of the training examples in every subset; default 0.5."""
    target: Literal["loss", "margin", "leave_one_out", "pbrf"] = "loss"
    """What is measured; see docs/targets.md."""
    seeds: int = 1
    """Base models of every architecture (split, initialisation, order), each a cell of its own."""
    resamples: int = 2000
    """Bootstrap resamples behind every interval."""

    def otherwise(self, **defaults: Any) -> Scale:
        """The same with ``defaults`` for what nobody has said."""
        return replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})

    def settings(self, tiny: bool = False) -> Settings:
        """The settings of every cell.

        Raises:
            DecompositionError: a value is outside its range.
        """
        randomness = self.randomness or "shared"
        shared = randomness == "shared"
        masks = TINY_MASKS if tiny else 1000 if shared else 200
        repeats = 1 if shared else 2 if tiny else 5
        if self.masks is not None:
            masks = self.masks
        if self.repeats is not None:
            repeats = self.repeats
        return Settings(
            masks=masks,
            alpha=0.5 if self.alpha is None else self.alpha,
            repeats=repeats,
            randomness=randomness,
            target=self.target,
            second_order_masks=min(50, masks),
            leave_one_out_examples=TINY_EXAMPLES if tiny else LEAVE_ONE_OUT_EXAMPLES,
            matrix_norms=False,
            detail=False,
            damping_points=5 if tiny else 13,
            resamples=200 if tiny else self.resamples,
        )


class Preset(Protocol):
    """A study to be: a frozen dataclass whose fields are its options.

    One that sets part of the scale by itself has a method ``scaled(scale, tiny)`` too, which fills
    in what nobody has said (``Scale.otherwise``), or raises where the two contradict.
    """

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        """The study of these options."""
        ...


def main(preset: type[Preset]) -> None:
    """Parse the command line of a preset and run it.

    Exit codes: 0 done, 1 said what is wrong or cells failed, 130 Ctrl-C, 143 SIGTERM.
    """
    hidden = tyro.conf.OmitArgPrefixes
    command = dataclasses.make_dataclass(
        preset.__name__,
        [("execution", hidden[Execution]), ("scale", hidden[Scale]), ("preset", hidden[preset])],
        frozen=True,
    )
    parsed = tyro.cli(command, description=inspect.getdoc(preset))
    execution: Execution = parsed.execution
    interruption.install(Path(sys.argv[0]).name, works=True)
    with interruption.reported():
        sys.exit(0 if _study(parsed, execution) else 1)


def _study(parsed: Any, execution: Execution) -> object:
    try:
        preset: Preset = parsed.preset
        scale: Scale = parsed.scale
        if hasattr(preset, "scaled"):
            scale = preset.scaled(scale, execution.tiny)  # type: ignore[attr-defined]
        settings = scale.settings(execution.tiny)
        study = preset.study(settings, scale.seeds, execution.tiny)
        return run_study(
            study,
            execution.out,
            backend=Backend(
                execution.backend, execution.jobs, execution.address, execution.threads
            ),
            memory=bytes_of(execution.memory),
            dry_run=execution.dry_run,
            command=shlex.join(["python", *sys.argv]),
        )
    except DecompositionError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(1)
