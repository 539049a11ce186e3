"""One cell: a problem at one checkpoint, from the problem to the groups of its result.

``run`` is a study of one cell, and a study's task calls the same function. What it returns is what
has been measured: curves, spectra, errors, and ``/levels``, from which shares and verdicts are made
(``shares.group``) of one cell or of many. No clock and no host enters: the same cell gives the same
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import xarray as xr

from decomposition.base_model import BaseModel, Clock, prepare
from decomposition.chain.approximations import beside
from decomposition.chain.build import Approximation, same_as
from decomposition.chain.plan import Plan, plan_chain
from decomposition.chain.shared_factors import check_decay_held
from decomposition.curvature import Curvature
from decomposition.curvature.inversion import DAMPED, as_inversion
from decomposition.device import full_precision, resolve_device
from decomposition.evaluation import mean_loss, outputs_on
from decomposition.losses import CrossEntropy
from decomposition.names import CHAIN
from decomposition.problem import Problem
from decomposition.resources import bytes_of
from decomposition.retraining.base import other_base
from decomposition.retraining.supplied import SuppliedBank
from decomposition.scores import attribution as scores
from decomposition.scores.bank_group import bank_group, examples_group, top_group
from decomposition.scores.cost_group import cost_group, solve_once
from decomposition.scores.elsewhere import Given, given_scores
from decomposition.scores.gradients import Gradients
from decomposition.scores.protocols import TUNED, rank_bound
from decomposition.scores.rules import check_inversion
from decomposition.settings import Settings
from decomposition.spectrum.errors import ErrorPlan
from decomposition.spectrum.groups import ERRORS, add_metrics, spectral_groups
from decomposition.spectrum.inverse_errors import solution_errors
from decomposition.spectrum.mismatch import eigenvalue_error
from decomposition.spectrum.overlaps import block_overlaps
from decomposition.spectrum.residuals import (
    VECTORS,
    VECTORS_BY_PRODUCTS,
    Directions,
    Treated,
    drawn,
    inverse_residuals,
    residual_rows,
)

ERROR_STRIDE = 3
"""Spectral errors are taken at every third damping of the grid, residuals at each where H is a
matrix."""
SAME_BLOCKS = (
    "the diagonal blocks of H and of the GGN are the same here, as in every ReLU network away from "
    "its kinks: block-diagonal H is the block GGN, and the linearisation costs nothing after the "
    "coupling between layers is dropped"
)
Dampings = Mapping[str, Mapping[str, float]]
"""Protocol → rung → λ."""


@full_precision()
def compute_cell(
    problem: Problem,
    settings: Settings,
    *,
    extra: Mapping[str, Approximation] | None = None,
    given: Given | None = None,
    bank: SuppliedBank | None = None,
    folder: Path | None = None,
    progress: bool = False,
    clock: Clock | None = None,
) -> xr.DataTree:
    """Train, build every rung, measure the truth, score: all that is computed about a cell.

    Args:
        problem: trained or not.
        settings: what to compute; without ``detail`` no more than levels, errors and losses.
        extra: rungs of the user's own, and of other protocols.
        given: scores made elsewhere, name → (queries, train).
        bank: models retrained elsewhere.
        folder: where banks are kept, and found again.
        progress: show bars.
        clock: gets the seconds of every stage, and of each rung; a query is solved once more by
            every rung for that.

    Returns:
        The measured groups of ``results/schema``; the attribute ``notes`` is a JSON list.

    Raises:
        DecompositionError: as the stages.
    """
    timed, clock = clock is not None, clock or Clock()
    place = resolve_device(settings.device)
    budget = bytes_of(settings.memory)
    plan = plan_chain(problem, budget, settings.products, place, settings.krylov_steps)
    check_decay_held(problem, plan)
    check_inversion(as_inversion(settings.inversion), plan)
    theirs = given_scores(given, problem, settings, beside(settings.also, extra))
    with clock.ledger.opened() if timed else nullcontext():
        base = prepare(problem, folder, extra, settings, clock, progress, bank, plan, theirs)
    notes = [*base.problem.notes, *_rung_notes(base.rungs), *base.notes]
    if same_as(base.known.rungs, "block_hessian") == "block_ggn":
        notes.append(SAME_BLOCKS)
    if base.inversion != DAMPED:
        notes.append(
            f"inversion {base.inversion}: {base.inversion.words}; damped-inverse and Stein errors "
            "and the counts of what a solve costs are those of (C + λI)⁻¹ all the same"
        )
    groups = {
        "/cells": _cell_group(base.problem, str(base.inversion)),
        "/cost": cost_group(base.problem, plan, base.known.rungs, beside(settings.also, extra)),
    }
    scored: list[scores.Scored] = []
    design = ceiling = repeats = None
    with clock.stage("scores"):
        if base.effects is not None:
            design = scores.Design.of(base.effects, settings)
            scored.append(scores.score(base, base.effects, design, settings.detail, progress))
            ceiling = scores.ceiling_of(base.effects, design)
            repeats = scores.repeats_curve_of(base.effects, scored[0], settings.level)
            groups |= scored[0].datasets
            scores.add_ceiling(groups["/attribution"], ceiling, settings.level)
            groups["/attribution"].attrs |= base.attributes
            notes += scores.notes(scored[0].selection, ceiling) + scores.refused(base.effects)
            if settings.detail:
                tuned = scored[0].selection.dampings[TUNED]
                groups["/top"] = top_group(base.scorers, tuned, settings.negative)
        elif settings.attribution:
            groups["/attribution"] = scores.without_truth(base, settings, progress)
        if settings.attribution:
            grid = scored[0].dampings if scored else groups["/attribution"]["damping"].values
            notes += scores.unsolved(base, grid, settings.negative)
            notes += scores.left_out(base) if settings.detail else []
    base.forget_scorers()  # a quarter of the memory, and nothing below needs it
    dampings = scores.of_protocols(scored[0].selection.dampings) if scored else {}
    with clock.stage("spectra"):
        groups |= _curvature_groups(
            base, plan, groups.get("/attribution"), dampings, settings, progress
        )
    if timed:
        with clock.stage("scores"), clock.ledger.opened():
            solve_once(base.rungs, base.gradients, _unit(base), settings.negative)
    notes += [] if plan.dense else _estimated_notes(groups, settings, plan)
    if settings.detail:
        groups |= _shown(base)
    del base  # the matrices of one base model at a time
    if design is not None:
        for number in range(1, settings.base_seeds):
            again = other_base(problem, number)
            other = prepare(again, folder, extra, settings, clock, progress, plan=plan)
            assert other.effects is not None
            with clock.stage("scores"):
                scored.append(scores.score(other, other.effects, design, False, progress))
            del other
        with clock.stage("scores"):
            groups |= scores.levels_groups(scored, design, ceiling, repeats)
    tree = xr.DataTree.from_dict(dict(sorted(groups.items())))
    tree.attrs["notes"] = json.dumps(list(dict.fromkeys(notes)), ensure_ascii=False)
    return tree


def _rung_notes(rungs: Mapping[str, Curvature]) -> list[str]:
    seen: dict[str, None] = {}
    for curvature in rungs.values():
        seen.update(dict.fromkeys(curvature.notes))
    return list(seen)


def _cell_group(problem: Problem, inversion: str) -> xr.Dataset:
    """``/cells``: mean loss on both sets; share of queries (of their labelled positions) whose
    largest output is the label, if classes; sizes; how λ enters the inverses."""
    found = {f"{split}_loss": mean_loss(problem, split) for split in ("train", "query")}
    y = problem.query[1]
    if not y.is_floating_point():
        outputs = outputs_on(problem, "query").unflatten(1, problem.output_shape)
        right = outputs.argmax(1) == y
        if y.ndim > 1 and isinstance(problem.query_loss, CrossEntropy):
            right = right[y != problem.query_loss.ignore_index]
        found["query_accuracy"] = float(right.double().mean())
    sizes = {
        "parameters": problem.num_parameters,
        "examples_used": problem.num_examples,
        "queries": problem.num_queries,
    }
    every = found | sizes | {"inversion": inversion}
    return xr.Dataset({name: ((), value) for name, value in every.items()})


def _shown(base: BaseModel) -> dict[str, xr.Dataset]:
    """The bank, and the examples to show."""
    groups: dict[str, xr.Dataset] = {}
    if base.bank is not None:
        groups["/bank"] = bank_group(base.bank, base.problem)
    examples = examples_group(base.problem)
    if examples is not None:
        groups["/examples"] = examples
    return groups


def _curvature_groups(
    base: BaseModel,
    plan: Plan,
    attribution: xr.Dataset | None,
    dampings: Dampings,
    settings: Settings,
    progress: bool,
) -> dict[str, xr.Dataset]:
    """Spectra and errors of every rung, each number with its error."""
    grid = _unit(base) * settings.multipliers()
    if attribution is not None and "damping" in attribution.coords:
        grid = attribution["damping"].values
    errors = _error_plan(base, grid, dampings, settings)
    queries = base.gradients.query if isinstance(base.gradients, Gradients) else None
    detailed = errors if settings.detail else None
    groups = spectral_groups(base.known, base.problem, plan, detailed, queries, progress)
    directions, treatments = _directions(base, settings), _treatments(base, dampings)
    add_metrics(groups, block_overlaps(base.known.rungs, errors.leading))
    if directions:
        at, added = errors.dampings, base.inversion.one_damping
        headline = at[errors.headline]
        if not base.rungs["hessian"].matrix_free:  # products with H are cheap: at every λ
            at = np.unique(np.append(grid, headline)).tolist()
        found = inverse_residuals(base.rungs, directions, at, treatments, settings.negative, added)
        add_metrics(groups, {ERRORS: residual_rows(found, at.index(headline))})
        multiplier = found["damping"] / _unit(base)
        groups["/residuals"] = found.sel(rung=list(CHAIN)).assign(multiplier=multiplier)
    split = eigenvalue_error(base.rungs, base.known.distances)
    if split is not None:
        groups["/eigenvalue_error"] = split
    error, steps = groups[ERRORS], base.known.frobenius.steps
    error["squared_error"] = (("step", "probe"), np.stack(list(steps.values())))
    error.coords["step"] = list(steps)
    error.coords["probe"] = np.arange(error.sizes["probe"])
    if dampings:
        parts = base.gradients.query_parts
        found = solution_errors(base.rungs, parts, dampings, settings.negative)
        error["misaligned_solutions"] = found.reindex(rung=error["rung"])
    return groups


def _directions(base: BaseModel, settings: Settings) -> list[Directions]:
    """Gradients along which inverses are tried; of training examples where they are in memory."""
    most = VECTORS_BY_PRODUCTS if base.rungs["hessian"].matrix_free else VECTORS
    found = base.gradients
    kinds = {"query": next(iter(found.query_parts(most)))}
    if isinstance(found, Gradients):
        kinds = {"train": found.train, "query": found.query}
    every = [drawn(kind, columns, most, settings.seed) for kind, columns in kinds.items()]
    return [one for one in every if one.columns.shape[1]]


def _treatments(base: BaseModel, dampings: Dampings) -> dict[str, Treated]:
    """The rungs under every protocol, and under every rule."""
    added = base.inversion.one_damping
    found = {name: Treated(base.rungs, at, at if added else {}) for name, at in dampings.items()}
    rules = {} if base.effects is None else base.effects.rules
    return found | {
        name: Treated(one.rungs, one.strengths, one.dampings) for name, one in rules.items()
    }


def _unit(base: BaseModel) -> float:
    """What dampings are multiples of: tr G / min(P, N·C)."""
    return float(base.known.frobenius.traces["ggn"] / rank_bound(base.problem))


def _error_plan(
    base: BaseModel, grid: np.ndarray, dampings: Dampings, settings: Settings
) -> ErrorPlan:
    """Dampings of the spectral errors: some of the grid, and the reference's own optimum."""
    own = dampings.get("equal", dampings.get(TUNED, {}))
    headline = own.get(scores.REFERENCE, _unit(base))
    chosen = np.unique(np.append(grid[::ERROR_STRIDE], headline))
    outputs = base.problem.num_outputs
    return ErrorPlan(
        dampings=chosen.tolist(),
        headline=int(np.flatnonzero(chosen == headline)[0]),
        leading=min(settings.leading or max(outputs, 2), base.problem.num_parameters),
        negative=settings.negative,
        matrix_norms=settings.matrix_norms,
        seed=settings.seed,
        protocols=dampings,
    )


def _estimated_notes(groups: Mapping[str, xr.Dataset], settings: Settings, plan: Plan) -> list[str]:
    """What a reader of estimates must know."""
    notes = [
        "the matrices of this model do not fit into the memory given: errors that involve H are "
        "estimated with random probes, and their intervals are over those"
    ]
    if settings.lattice and plan.no_lattice:
        notes.append(plan.no_lattice)
    if "agreement_with" in groups.get("/attribution", xr.Dataset()).attrs:
        notes.append(
            f"agreement is with {groups['/attribution'].attrs['agreement_with']}, the best rung "
            "that could be solved, not with retrained models"
        )
    return notes
