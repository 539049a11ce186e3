"""The whole study of one problem: train, retrain, build, score, attribute, write, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import xarray as xr

from decomposition.base_model import BaseModel, Clock, prepare
from decomposition.chain.approximations import beside
from decomposition.chain.build import CHAIN, LATTICE, Approximation, check_extra
from decomposition.chain.large import check_decay_held
from decomposition.chain.plan import Plan, Precision, plan_chain
from decomposition.curvature import Curvature
from decomposition.device import describe, full_precision, resolve_device
from decomposition.problem import Problem
from decomposition.resources import bytes_of
from decomposition.results import provenance, write_result
from decomposition.results.write import REPORT_NAME, RESULT_NAME, check_writable, output_folder
from decomposition.retraining.bank import Bank
from decomposition.retraining.base import other_base
from decomposition.retraining.supplied import as_supplied
from decomposition.retraining.supplied_settings import settings_of
from decomposition.scores import attribution as scores
from decomposition.scores.bank_group import bank_group, examples_group, top_group
from decomposition.scores.gradients import Gradients
from decomposition.scores.levels import Levels
from decomposition.scores.protocols import TUNED, rank_bound
from decomposition.settings import Settings
from decomposition.shares.group import shares
from decomposition.shares.prediction import prediction_group
from decomposition.spectrum.comparisons import ErrorPlan
from decomposition.spectrum.estimated import spectra_groups
from decomposition.spectrum.groups import errors as spectral_errors
from decomposition.spectrum.groups import spectra
from decomposition.spectrum.norms_group import forms_group

REFERENCE = "hessian"
ERROR_STRIDE = 3
"""Spectral errors are taken at every third damping of the grid."""


@full_precision()
def run(
    problem: Problem,
    out: str | Path | None = None,
    *,
    extra: Mapping[str, Approximation] | None = None,
    settings: Settings | None = None,
    progress: bool = True,
    command: str | None = None,
    device: str | None = None,
    bank: Bank | str | Path | None = None,
    memory: float | None = None,
    products: Precision = "float64",
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
        settings: what to compute; default the full study.
        progress: show progress bars.
        command: what to type to make the result again; default this process's command line.
        device: cpu, cuda or cuda:N; default ``settings.device``.
        bank: models retrained elsewhere, or the file that holds what they answered (see
            ``read_bank``): the truth, in place of retraining; decides masks, repeats and alpha.
        memory: GiB that curvature may take; default three quarters of what is free. Where dense
            matrices do not fit, rungs take other forms (see ``plan_chain``), errors against H are
            estimated, and scored are the dampings at which iteration solves it.
        products: precision of the products with H and G that take their place.

    Returns:
        The result tree (see decomposition.results.schema).

    Raises:
        DecompositionError: anything wrong with the problem, an approximation or the folder.
    """
    budget = bytes_of(memory)
    check_extra(extra)
    settings = settings or Settings()
    beside(settings.also, extra)  # before the work, not after it
    if device is not None:
        settings = replace(settings, device=device)
    place = resolve_device(settings.device)
    supplied = None if bank is None else as_supplied(bank, problem)
    if supplied is not None:
        settings = settings_of(supplied, settings)
    folder = None if out is None else output_folder(out)
    if folder is not None:
        check_writable(folder, RESULT_NAME, REPORT_NAME)  # before the work, not after it
    clock = Clock()
    plan = plan_chain(problem, budget, products, place, settings.krylov_steps)
    check_decay_held(problem, plan)
    base = prepare(problem, folder, extra, settings, clock, progress, supplied, plan)
    groups: dict[str, xr.Dataset] = {}
    notes = [*base.problem.notes, *_rung_notes(base.rungs), *base.notes]
    levels = ceiling = design = by_repeats = None
    scored: list[scores.Scored] = []
    if base.measured is not None:
        with clock.stage("scores"):
            design = scores.Design.of(base, settings, REFERENCE)
            scored.append(scores.score(base, design, detailed=True, progress=progress))
            ceiling = scores.ceiling_of(base, design)
            groups |= scored[0].datasets
            scores.add_ceiling(groups["/attribution"], ceiling, settings.level)
            groups["/attribution"].attrs |= base.attributes
            notes += scores.notes(scored[0].selection, ceiling, REFERENCE)
            by_repeats = scores.repeats_curve_of(base, scored[0], REFERENCE, settings.level)
            tuned = scored[0].selection.dampings["tuned"]
            groups["/top"] = top_group(base.scorers, tuned, settings.negative)
    elif settings.attribution:
        with clock.stage("scores"):
            groups["/attribution"] = scores.without_truth(base, settings, REFERENCE, progress)
    if "/attribution" in groups:
        notes += scores.unsolved(base.scorers, groups["/attribution"]["damping"].values)
    base.scorers.clear()  # a quarter of the memory, and nothing below needs it
    dampings = scored[0].selection.dampings if scored else {}
    with clock.stage("spectra"):
        attribution = groups.get("/attribution")
        groups |= _curvature_groups(base, plan, attribution, dampings, settings, progress)
    notes += [] if plan.dense else _estimated_notes(groups, settings)
    if base.bank is not None:
        groups["/bank"] = bank_group(base.bank, base.problem)
    shown = examples_group(base.problem)
    if shown is not None:
        groups["/examples"] = shown
    trained, split = base.problem, base.split
    del base  # the matrices of one base model at a time
    if design is not None:
        for number in range(1, settings.base_seeds):
            again = other_base(problem, number)
            other = prepare(again, folder, extra, settings, clock, progress, plan=plan)
            with clock.stage("scores"):
                scored.append(scores.score(other, design, detailed=False, progress=progress))
            del other
        levels = scores.combine(scored, design)
        if not set(CHAIN) <= set(levels.nodes):  # a rung that was solved nowhere: no steps
            levels = None
    with clock.stage("shares"):
        inverse = groups["/spectral_error"].get("misaligned")
        groups |= shares(split, inverse, levels, dampings, ceiling, settings, by_repeats)
        groups["/spectral_error"] = groups["/spectral_error"].drop_dims("protocol", errors="ignore")
        if levels is not None:
            groups |= _extras(groups, levels, settings)
    return _finished(trained, settings, groups, notes, clock, command, folder)


def _curvature_groups(
    base: BaseModel,
    plan: Plan,
    attribution: xr.Dataset | None,
    dampings: Mapping[str, Mapping[str, float]],
    settings: Settings,
    progress: bool,
) -> dict[str, xr.Dataset]:
    """Spectra and spectral errors: of matrices, or estimated."""
    if base.estimated is not None:
        errors, found = base.estimated.errors, base.estimated.spectra
        rows = base.problem.num_examples * base.problem.num_outputs
        return {
            "/forms": forms_group(base.rungs, plan, errors),
            **spectra_groups(found, errors, rows),
        }
    assert isinstance(base.gradients, Gradients)
    error_plan = _error_plan(base, attribution, dampings, settings)
    blocks = {block.name: block.slice for block in base.problem.blocks}
    return {
        **spectra(base.rungs),
        **spectral_errors(base.rungs, error_plan, base.gradients.query, blocks, progress),
    }


def _estimated_notes(groups: Mapping[str, xr.Dataset], settings: Settings) -> list[str]:
    """What a reader of estimates must know."""
    notes = [
        "the matrices of this model do not fit into the memory given: errors that involve H are "
        "estimated with random probes, and their intervals are over those"
    ]
    if settings.lattice:
        notes.append(
            "steps are read in the chain's own order alone: H by blocks and H in the Kronecker "
            "basis, which the other orders take, are built from dense matrices only"
        )
    if "/attribution" in groups:
        notes.append(
            f"agreement is with {groups['/attribution'].attrs['agreement_with']}, the best rung "
            "that could be solved, not with retrained models"
        )
    return notes


def _finished(
    trained: Problem,
    settings: Settings,
    groups: Mapping[str, xr.Dataset],
    notes: list[str],
    clock: Clock,
    command: str | None,
    folder: Path | None,
) -> xr.DataTree:
    """The tree with its attributes, written and reported."""
    tree = xr.DataTree.from_dict(dict(sorted(groups.items())))
    tree.attrs = _attributes(trained, settings, list(dict.fromkeys(notes)), clock.seconds, command)
    if folder is not None:
        from decomposition.report import write_report  # figures: seconds to import

        write_result(tree, folder)
        write_report(tree, folder)
    return tree


def _extras(
    groups: Mapping[str, xr.Dataset], levels: Levels, settings: Settings
) -> dict[str, xr.Dataset]:
    """Whether spectral error predicts the loss, and the levels of single base models."""
    found: dict[str, xr.Dataset] = {}
    if "damped_value" in groups["/spectral_error"]:
        found["/prediction"] = prediction_group(
            groups["/spectral_error"],
            groups["/attribution"],
            groups["/shares"]["level"].sel(protocol="tuned"),
            settings.level,
            settings.seed,
        )
    if len(levels.per_base) > 1:
        found["/base_models"] = xr.Dataset(
            {"level": (("base_model", "protocol", "rung"), levels.per_base)},
            {
                "base_model": np.arange(len(levels.per_base)),
                "protocol": list(levels.protocols),
                "rung": list(levels.nodes),
            },
        )
    return found


def _error_plan(
    base: BaseModel,
    attribution: xr.Dataset | None,
    dampings: Mapping[str, Mapping[str, float]],
    settings: Settings,
) -> ErrorPlan:
    """Dampings of the spectral errors: some of the grid, and the reference's own optimum."""
    scale = base.rungs["ggn"].trace() / rank_bound(base.problem)
    grid = scale * settings.multipliers() if attribution is None else attribution["damping"].values
    headline = dampings.get("equal", dampings.get(TUNED, {})).get(REFERENCE, scale)
    chosen = np.unique(np.append(grid[::ERROR_STRIDE], headline))
    outputs = base.problem.num_outputs
    return ErrorPlan(
        dampings=chosen.tolist(),
        headline=int(np.flatnonzero(chosen == headline)[0]),
        leading=min(max(outputs, 2), base.problem.num_parameters),
        negative=settings.negative,
        matrix_norms=settings.matrix_norms,
        without_norms=frozenset(LATTICE) - frozenset(CHAIN),
        seed=settings.seed,
        protocols=dampings,
    )


def _rung_notes(rungs: Mapping[str, Curvature]) -> list[str]:
    seen: dict[str, None] = {}
    for curvature in rungs.values():
        seen.update(dict.fromkeys(curvature.notes))
    return list(seen)


def _attributes(
    problem: Problem,
    settings: Settings,
    notes: list[str],
    timings: Mapping[str, float],
    command: str | None,
) -> dict[str, object]:
    return {
        **provenance(
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
            notes=notes,
            timings=timings,
            command=command,
            device=describe(resolve_device(settings.device)),
        ),
        "ci_level": settings.level,
    }
