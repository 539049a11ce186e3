"""One base model from training to scored rungs: what a run does once per base seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from decomposition.attribution.influence import Gradients, target_gradients
from decomposition.attribution.scorer import FixedScorer, Scorer, scorer, scorers_of
from decomposition.chain.build import Approximation, build_chain, build_lattice
from decomposition.chain.frobenius import frobenius_split
from decomposition.curvature import Curvature, ScaledIdentity
from decomposition.device import full_precision, resolve_device
from decomposition.problem import Problem
from decomposition.retraining.bank import Bank, BankPlan
from decomposition.retraining.supplied import SuppliedBank
from decomposition.settings import Settings
from decomposition.stages.selection import Measured
from decomposition.stages.spectra import decompose_all
from decomposition.stages.vanishing import check_curvature
from decomposition.targets.leave_one_out import LeaveOneOutPlan
from decomposition.targets.measurement import (
    Measurement,
    measure_leave_one_out,
    measure_proximal_responses,
    measure_subsets,
    measure_supplied,
)
from decomposition.targets.names import ONE_AT_A_TIME, TargetError, check_problem, measured_function
from decomposition.targets.variation import check_before, check_moves, start_notes


@dataclass
class Clock:
    """Wall-clock seconds of every stage, added up over base models."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


@dataclass(frozen=True)
class BaseModel:
    """A trained base model with its bank, its rungs and what scores them."""

    problem: Problem
    """Trained."""
    bank: Bank | None
    measured: Measured | None
    """None without attribution."""
    rungs: dict[str, Curvature]
    split: dict[str, float]
    """Squared Frobenius error of each step."""
    gradients: Gradients
    scorers: dict[str, Scorer]
    """Rungs and baselines; empty without attribution."""
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    """What the levels are, for ``/attribution``."""
    notes: tuple[str, ...] = ()
    """What a reader must know about the target."""


@full_precision()
def prepare(
    problem: Problem,
    folder: Path | None,
    extra: Mapping[str, Approximation] | None,
    settings: Settings,
    clock: Clock,
    progress: bool,
    bank: SuppliedBank | None = None,
) -> BaseModel:
    """Train, build every rung, measure the target, decompose the rungs, rotate the gradients.

    With ``bank`` nothing is retrained: it is the truth.

    Raises:
        DecompositionError: the problem does not have the target, or as the stages.
    """
    check_problem(problem, settings.target)
    check_truth(problem, settings, bank)
    problem = problem.to(resolve_device(settings.device))
    with clock.stage("train"):
        trained = problem.trained(progress=progress)
    with clock.stage("assemble"):  # before retraining: a rung of the user's own may be wrong
        rungs = (build_lattice if settings.lattice else build_chain)(trained, extra)
        split = frobenius_split(rungs)
        gradients = target_gradients(trained, measured_function(settings.target))
        check_curvature(problem, trained, rungs, gradients)
    found: Measurement | None = None
    if settings.attribution and settings.target != "pbrf":
        with clock.stage("retrain"):
            if bank is None:
                found = retrained(trained, settings, folder, progress)
            else:
                found = measure_supplied(trained, bank, measured_function(settings.target))
    with clock.stage("eigendecompositions"):
        decompose_all(rungs, progress)
    if settings.attribution and settings.target == "pbrf":  # in the eigenbasis of the GGN
        with clock.stage("respond"):
            found = _respond(trained, rungs, settings, folder, progress)
    if found is None:
        return BaseModel(trained, None, None, rungs, split, gradients, {})
    with clock.stage("scores"):
        scorers = scorers_of(rungs, gradients)
        scorers |= _baselines(trained, rungs, gradients, settings)
    measured = Measured(found.weights, found.truth, found.second)
    return BaseModel(
        trained,
        found.bank,
        measured,
        rungs,
        split,
        gradients,
        scorers,
        found.attributes,
        found.notes,
    )


def check_truth(problem: Problem, settings: Settings, bank: SuppliedBank | None) -> None:
    """Before any work, that models which are to be retrained, or a bank, can give a truth.

    Raises:
        DecompositionError: as ``check_before`` and ``measure_supplied``.
    """
    if bank is not None:
        measure_supplied(problem, bank, measured_function(settings.target))
    elif settings.attribution:
        check_before(problem, bank_plan(problem, settings), settings.target)


def bank_plan(problem: Problem, settings: Settings) -> BankPlan:
    """The masks of a target, with the models that are retrained on them."""
    if settings.target not in ONE_AT_A_TIME:
        return settings.plan
    return LeaveOneOutPlan.of(settings.plan, settings.leave_one_out_examples, problem.examples)


def retrained(
    problem: Problem, settings: Settings, folder: Path | None, progress: bool
) -> Measurement:
    """The target of models retrained here; their bank is kept in ``folder``."""
    check_moves(problem, bank_plan(problem, settings))
    store = None if folder is None else folder / "bank"
    if settings.target == "leave_one_out":
        count = settings.leave_one_out_examples
        found = measure_leave_one_out(problem, settings.plan, count, store, progress)
    else:
        function = measured_function(settings.target)
        found = measure_subsets(problem, settings.plan, function, store, progress)
    return replace(found, notes=(*found.notes, *start_notes(problem)))


def _respond(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    settings: Settings,
    folder: Path | None,
    progress: bool,
) -> Measurement:
    found = measure_proximal_responses(
        problem,
        rungs["ggn"],
        settings.pbrf_damping,
        settings.plan,
        settings.leave_one_out_examples,
        None if folder is None else folder / "pbrf",
        progress,
    )
    left_out = int(found.attributes["pbrf_unconverged"])
    if left_out and settings.base_seeds > 1:
        raise TargetError(
            f"{left_out} proximal responses of a base model did not converge, and base models are "
            "compared on the same examples: raise pbrf_damping or use one base seed"
        )
    return found


def _baselines(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    gradients: Gradients,
    settings: Settings,
) -> dict[str, Scorer]:
    """Identity scaled to trace H / P, and random scores."""
    scale = abs(rungs["hessian"].trace()) / problem.parameters
    identity = ScaledIdentity(problem.parameters, scale, problem.device)
    return {
        "identity": scorer(identity, gradients),
        "random": FixedScorer(problem.queries, problem.examples, settings.seed),
    }
