"""The whole study of one problem: compute its cell, share out its loss, write and report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import xarray as xr

from decomposition.base_model import Clock
from decomposition.chain.approximations import beside
from decomposition.chain.build import CHAIN, Approximation, check_extra
from decomposition.chain.plan import Precision
from decomposition.device import describe, full_precision, resolve_device
from decomposition.pipeline import compute_cell
from decomposition.problem import Problem
from decomposition.results import provenance, write_result
from decomposition.results.write import REPORT_NAME, RESULT_NAME, check_writable, output_folder
from decomposition.retraining.bank import Bank
from decomposition.retraining.supplied import as_supplied
from decomposition.scores.cost_group import measured
from decomposition.scores.elsewhere import Given
from decomposition.settings import Settings
from decomposition.shares.group import share_groups
from decomposition.shares.over_cells import over_cells
from decomposition.targets.truth import settings_of


@full_precision()
def run(
    problem: Problem,
    out: str | Path | None = None,
    *,
    extra: Mapping[str, Approximation] | None = None,
    scores: Given | None = None,
    settings: Settings | None = None,
    progress: bool = True,
    command: str | None = None,
    device: str | None = None,
    bank: Bank | str | Path | None = None,
    memory: float | None = None,
    products: Precision | None = None,
) -> xr.DataTree:
    """Decompose a problem's approximation error into its steps.

    Trains the base model unless ``problem.initial`` says that it is trained, retrains it on
    random subsets, builds every rung, and scores all of them spectrally and against the
    retrained models, or against what else ``settings.target`` names. Killed at any time, the
    same call resumes the retraining from ``out``.
    Tables and curves are those of the first base model; levels and shares of all of them.

    Args:
        problem: what to study.
        out: folder for ``result.nc``, ``report.html`` and the bank of retrained models; None
            keeps everything in memory.
        extra: name → function from the (trained) problem to a Curvature, scored beside the chain.
        scores: made elsewhere, name → array (queries, train), positive where removing the training
            example raises the query's loss; only ranks count (see decomposition.scores.elsewhere).
        settings: what to compute; default the full study.
        progress: show progress bars.
        command: what to type to make the result again; default this process's command line.
        device: in place of ``settings.device``: cpu, cuda or cuda:N.
        bank: models retrained elsewhere, or the file that holds what they answered (see
            ``read_bank``): the truth, in place of retraining; decides masks, repeats and alpha.
        memory: in place of ``settings.memory``: GiB that curvature may take. Where dense matrices
            do not fit, rungs take other forms (see ``plan_chain``), errors against H are estimated,
            and scored are the dampings at which iteration solves it.
        products: in place of ``settings.products``: float64 or float32, of the products with H and
            G that take the place of matrices.

    Returns:
        The result tree (see decomposition.results.schema).

    Raises:
        DecompositionError: anything wrong with the problem, an approximation or the folder.
    """
    check_extra(extra)
    told = {"device": device, "memory": memory, "products": products}
    told = {name: value for name, value in told.items() if value is not None}
    settings = replace(settings or Settings(), **told)
    beside(settings.also, extra)  # before the work, not after it
    place = resolve_device(settings.device)
    supplied = None if bank is None else as_supplied(bank, problem)
    if supplied is not None:
        settings = settings_of(supplied, settings)
    folder = None if out is None else output_folder(out)
    if folder is not None:
        check_writable(folder, RESULT_NAME, REPORT_NAME)  # before the work, not after it
    clock = Clock()
    tree = compute_cell(
        problem,
        settings,
        extra=extra,
        given=scores,
        bank=supplied,
        folder=folder,
        progress=progress,
        clock=clock,
    )
    rungs = [str(name) for name in tree["cost"].to_dataset()["rung"].values]
    tree["cost"].attrs |= measured(clock.ledger, rungs)
    with clock.stage("shares"):
        for path, group in share_groups(tree, settings).items():
            tree[path] = xr.DataTree(group)
        for path, group in over_cells([tree], settings.level).items():
            tree[path] = xr.DataTree(group.squeeze("cell", drop=True))
    tree.attrs = provenance(
        problem=problem.name,
        config={
            "settings": asdict(settings),
            "recipe": asdict(problem.recipe),
            "model": repr(problem.model),
            "loss": problem.loss_function.name,
            "chain": list(CHAIN),
        },
        seeds={"run": settings.seed, "recipe": problem.recipe.seed},
        parameters=problem.num_parameters,
        examples=problem.num_examples,
        queries=problem.num_queries,
        notes=json.loads(tree.attrs["notes"]),
        timings=clock.seconds,
        command=command,
        device=describe(place),
        ci_level=settings.level,
    )
    if folder is not None:
        from decomposition.report import write_report  # figures: seconds to import

        write_result(tree, folder)
        write_report(tree, folder)
    return tree
