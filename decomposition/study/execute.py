"""Run a study: predict, retrain, compute the cells, combine, report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from decomposition.resources import size_text
from decomposition.results.provenance import origin
from decomposition.results.schema import SCHEMA_VERSION
from decomposition.results.validate import check_tree
from decomposition.results.write import (
    REPORT_NAME,
    STUDY_NAME,
    check_writable,
    output_folder,
    write_tree,
)
from decomposition.study.combine import combine
from decomposition.study.design import Study
from decomposition.study.executors import Backend
from decomposition.study.predict import Speed, cell_memory
from decomposition.study.progress import duration, plan_text
from decomposition.study.runner import run_tasks
from decomposition.study.schedule import Group, makespan, missing_groups
from decomposition.study.store import CellStore
from decomposition.study.task import Task
from decomposition.study.tasks import CellTask, RetrainTask, retrain_tasks, trainings


def run_study(
    study: Study,
    out: str | Path,
    *,
    backend: Backend | None = None,
    memory: int | None = None,
    dry_run: bool = False,
    progress: bool = True,
    command: str | None = None,
) -> xr.DataTree | None:
    """Compute what is missing of a study and write ``study.nc`` and ``report.html``.

    Args:
        study: what to compute.
        out: folder; killed at any time, the same call resumes, and several processes may share it.
        backend: what runs the tasks; default as many local processes as cores and memory allow.
        memory: bytes that running tasks may use together; default three quarters of what is free.
        dry_run: print the prediction and stop.
        progress: show progress bars and the prediction.
        command: what to type to make the result again; default this process's command line.

    Returns:
        The combined result; None after a dry run, or while cells are missing (failed ones are
        named on stderr; the others are kept).

    Raises:
        DecompositionError: the study, the folder or the backend cannot be used.
    """
    folder, backend = output_folder(out), backend or Backend()
    check_writable(folder, STUDY_NAME, REPORT_NAME)
    tasks = tasks_of(study, Speed.measure(study.cells))
    groups = missing_groups(tasks, folder, backend, memory)
    if progress or dry_run:
        print(_prediction(study, groups), file=sys.stderr)
    if dry_run:
        print(plan_text(groups, memory), file=sys.stderr)
        return None
    run_tasks(tasks, folder, backend=backend, memory=memory, progress=progress)
    tree = combined(study, folder, command)
    if tree is not None:
        from decomposition.report import write_report

        check_tree(tree, "the study to be written", strict=True)
        write_tree(tree, folder / STUDY_NAME)
        write_report(tree, folder)
        print(f"wrote {folder / STUDY_NAME} and {folder / 'report.html'}", file=sys.stderr)
    return tree


def tasks_of(study: Study, speed: Speed) -> list[Task]:
    """Retraining first, then the cells, with the time and memory that each is expected to take."""
    tasks: list[Task] = []
    for cell in trainings(study.cells):
        tasks += retrain_tasks(cell, speed.training_seconds(cell))
    tasks += [
        CellTask(cell=cell, predicted=speed.cell_seconds(cell), peak=cell_memory(cell))
        for cell in study.cells
    ]
    return tasks


def _prediction(study: Study, groups: Sequence[Group]) -> str:
    if not groups:
        return f"{study.title}: all {len(study.cells)} cells are there"
    tasks = [task for group in groups for task in group.tasks]
    processor = sum(task.seconds() for task in tasks)
    models = sum(task.models for task in tasks if isinstance(task, RetrainTask))
    cells = sum(isinstance(task, CellTask) for task in tasks)
    largest = max(
        task.memory() * min(group.jobs, len(group.tasks))
        for group in groups
        for task in group.tasks
    )
    return (
        f"{study.title}: {models:,} models to retrain and {cells} cells to compute; predicted "
        f"{duration(makespan(groups))} here, {duration(processor)} of one core, at most "
        f"{size_text(largest)}"
    )


def combined(study: Study, folder: Path, command: str | None = None) -> xr.DataTree | None:
    """The study's result from the cells in the store; None while one is missing."""
    store = CellStore(folder)
    trees = [(cell, store.load(CellTask(cell=cell).key())) for cell in study.cells]
    found = [tree for _, tree in trees if tree is not None]
    missing = len(trees) - len(found)
    if missing:
        print(
            f"{missing} of {len(trees)} cells are missing: see `decompose study status {folder}`; "
            "the same command computes them",
            file=sys.stderr,
        )
        return None
    level = study.cells[0].settings.level
    tree = xr.DataTree.from_dict(combine(study.cells, found, study.factor, level))
    tree.attrs = {
        "schema_version": SCHEMA_VERSION,
        **origin(
            config={"cells": [cell.config() for cell in study.cells]},
            command=command,
            ci_level=level,
        ),
        "study": study.name,
        "title": study.title,
        "description": study.description,
        "factor": study.factor,
    }
    return tree
