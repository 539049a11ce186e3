"""The whole study of one problem: train, retrain, build, score, attribute, write, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import xarray as xr

from decomposition.attribution.influence import loss_gradients
from decomposition.attribution.scorer import FixedScorer, Scorer, scorer
from decomposition.chain.build import CHAIN, Approximation, build_chain, build_lattice
from decomposition.chain.frobenius import frobenius_split
from decomposition.curvature import Curvature, ScaledIdentity
from decomposition.problem import Problem
from decomposition.report import write_report
from decomposition.results import provenance, write_result
from decomposition.results.write import check_writable
from decomposition.retraining.bank import retrain_bank
from decomposition.settings import Settings
from decomposition.spectrum.errors import ErrorPlan
from decomposition.stages.bank import bank_group, examples_group, top_group
from decomposition.stages.scores import Scores, score
from decomposition.stages.selection import Measured
from decomposition.stages.shares import shares
from decomposition.stages.spectra import decompose_all, errors, spectra

REFERENCE = "hessian"
ERROR_DAMPINGS = 7


def run(
    problem: Problem,
    out: str | Path | None = None,
    *,
    extra: Mapping[str, Approximation] | None = None,
    settings: Settings | None = None,
    progress: bool = True,
    command: str | None = None,
) -> xr.DataTree:
    """Decompose a problem's approximation error into its steps.

    Trains the base model unless ``problem.initial`` says that it is trained, retrains it on
    random subsets, builds every rung, and scores all of them spectrally and against the
    retrained models. Killed at any time, the same call resumes the retraining from ``out``.

    Args:
        problem: what to study.
        out: folder for ``result.nc``, ``report.html`` and the bank of retrained models; None
            keeps everything in memory.
        extra: name → function from the (trained) problem to a Curvature, scored beside the chain.
        settings: what to compute; default the full study.
        progress: show progress bars.
        command: what to type to make the result again; default this process's command line.

    Returns:
        The result tree (see decomposition.results.schema).

    Raises:
        DecompositionError: anything wrong with the problem, an approximation or the folder.
    """
    settings = settings or Settings()
    folder = None if out is None else Path(out)
    if folder is not None:
        check_writable(folder)  # before an hour of work, not after
    clock = _Clock()
    with clock.stage("train"):
        trained = problem.trained(progress=progress)
    measured = bank = None
    if settings.attribution:
        with clock.stage("retrain"):
            store = None if folder is None else folder / "bank"
            bank = retrain_bank(trained, settings.plan, store, progress=progress)
            measured = Measured(
                bank.masks, bank.measurements(trained), bank.second_measurements(trained)
            )
    with clock.stage("assemble"):
        build = build_lattice if settings.lattice else build_chain
        rungs = build(trained, extra)
        split = frobenius_split(rungs)
    with clock.stage("eigendecompositions"):
        decompose_all(rungs, progress)
    gradients = loss_gradients(trained)
    groups: dict[str, xr.Dataset] = {}
    scores: Scores | None = None
    scorers: dict[str, Scorer] = {}
    if measured is not None and bank is not None:
        with clock.stage("scores"):
            scorers = {name: scorer(rung, gradients) for name, rung in rungs.items()}
            scorers |= _baselines(trained, rungs, gradients, settings)
            scores = score(scorers, measured, settings, REFERENCE, progress)
    with clock.stage("spectra"):
        plan = _error_plan(trained, rungs, scores, settings)
        blocks = {block.name: block.slice for block in trained.blocks}
        groups |= spectra(rungs)
        groups |= errors(rungs, plan, gradients.query, blocks, progress)
    with clock.stage("shares"):
        inverse = groups["/spectral_error"]["inverse_squared"] if plan.protocols else None
        groups |= shares(
            split,
            inverse,
            None if scores is None else scores.levels,
            {} if scores is None else scores.dampings,
            None if scores is None else scores.ceiling,
            settings,
        )
        groups["/spectral_error"] = groups["/spectral_error"].drop_dims("protocol")
    if scores is not None and bank is not None:
        groups |= scores.datasets
        groups["/bank"] = bank_group(bank, trained)
        groups["/top"] = top_group(scorers, scores.dampings["tuned"], settings.negative)
    shown = examples_group(trained)
    if shown is not None:
        groups["/examples"] = shown
    notes = [*_rung_notes(rungs), *(scores.notes if scores else [])]
    tree = xr.DataTree.from_dict(dict(sorted(groups.items())))
    tree.attrs = _attributes(trained, settings, notes, clock.seconds, command)
    if folder is not None:
        write_result(tree, folder)
        write_report(tree, folder)
    return tree


def _baselines(
    problem: Problem, rungs: Mapping[str, Curvature], gradients, settings: Settings
) -> dict[str, Scorer]:
    """Identity scaled to trace H / P, and random scores."""
    scale = abs(rungs[REFERENCE].trace()) / problem.parameters
    identity = ScaledIdentity(problem.parameters, scale)
    return {
        "identity": scorer(identity, gradients),
        "random": FixedScorer(problem.queries, problem.examples, settings.seed),
    }


def _error_plan(
    problem: Problem, rungs: Mapping[str, Curvature], scores: Scores | None, settings: Settings
) -> ErrorPlan:
    """Dampings of the spectral errors: a coarse grid with the reference's own optimum in it."""
    scale = rungs["ggn"].trace() / problem.parameters
    coarse = scale * np.geomspace(settings.damping_low, settings.damping_high, ERROR_DAMPINGS)
    headline = scale if scores is None else scores.dampings["equal"][REFERENCE]
    dampings = np.unique(np.append(coarse, headline))
    protocols = {} if scores is None else scores.dampings
    outputs = problem.blocks[-1].d_out if problem.blocks else 1
    return ErrorPlan(
        dampings=dampings.tolist(),
        headline=int(np.flatnonzero(dampings == headline)[0]),
        leading=min(max(outputs, 2), problem.parameters),
        negative=settings.negative,
        matrix_norms=settings.matrix_norms,
        seed=settings.seed,
        protocols=protocols,
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
    recipe = asdict(problem.recipe)
    return {
        **provenance(
            problem=problem.name,
            config={
                "settings": asdict(settings),
                "recipe": recipe,
                "model": repr(problem.model),
                "loss": problem.loss_function.name,
                "chain": list(CHAIN),
            },
            seeds={"run": settings.seed, "recipe": problem.recipe.seed},
            parameters=problem.parameters,
            examples=problem.examples,
            queries=problem.queries,
            notes=notes,
            timings=timings,
            command=command,
        ),
        "ci_level": settings.level,
    }


class _Clock:
    """Wall-clock seconds of every stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
