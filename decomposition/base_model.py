"""One base model from training to scored rungs: what a run does once per base seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float

from decomposition.chain.approximations import beside
from decomposition.chain.build import Approximation, build_chain, build_lattice
from decomposition.chain.plan import UNLIMITED, Plan, plan_chain
from decomposition.curvature import Curvature
from decomposition.curvature.inversion import Inversion, as_inversion
from decomposition.curvature.vanishing import check_curvature
from decomposition.device import CPU, full_precision, resolve_device
from decomposition.ledger import SCORE, Ledger, spending
from decomposition.linalg import from_numpy
from decomposition.problem import Problem
from decomposition.retraining.bank import Bank
from decomposition.retraining.supplied import SuppliedBank
from decomposition.scores.cost_group import GRADIENTS, decompose
from decomposition.scores.effects import Effects, Measured, Ruled
from decomposition.scores.elsewhere import sign_note
from decomposition.scores.gradients import (
    Gradients,
    GradientSource,
    QueryFunction,
    StreamedGradients,
    target_gradients,
)
from decomposition.scores.row_space import RowImages
from decomposition.scores.rules import (
    DampingRule,
    RuledRungs,
    damping_rules,
    inverted_rungs,
    ruled_rungs,
)
from decomposition.scores.scorer import Eigenvalues, FixedScorer, Scorer
from decomposition.scores.scorers import baselines, scorers_of
from decomposition.scores.solving import SolvingScorer
from decomposition.scores.spectral import Rotations
from decomposition.settings import Settings
from decomposition.spectrum.known import Known, known_of
from decomposition.targets.functions import check_problem, measured_function
from decomposition.targets.truth import Truth, check_truth, measured_truth


@dataclass
class Clock:
    """Wall-clock seconds of every stage, added up over base models; and of the rungs' parts."""

    seconds: dict[str, float] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    """What the rungs of the first base model took."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


def eigenvalues_of(known: Known, name: str) -> Eigenvalues | None:
    """What damping protocols ask of a rung; None of a solver alone."""
    found = known.spectra.get(name)
    if found is None:
        return None
    nodes, counts = found.measure.pooled()
    if found.definite and name in known.frobenius.traces:
        magnitude = float(known.frobenius.traces[name])
    else:
        magnitude = float(found.statistic(lambda mu, w: float(w @ np.abs(mu))))
    return Eigenvalues(from_numpy(nodes, CPU), magnitude, from_numpy(counts, CPU))


@dataclass(frozen=True)
class BaseModel:
    """A trained base model with its bank, its rungs and what scores them."""

    problem: Problem
    """The problem with its trained model."""
    bank: Bank | None
    rungs: dict[str, Curvature]
    """With the inverse that ``inversion`` gives them."""
    inversion: Inversion
    """How λ enters them."""
    known: Known
    """What their forms tell: spectra, norms, and the squared error of each step."""
    gradients: GradientSource
    scorers: dict[str, Scorer]
    """Rungs and baselines; empty without attribution."""
    effects: Effects | None
    """What they predict, beside what was measured; None without attribution, or where the truth
    cannot be afforded."""
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    """What the levels are, for ``/attribution``."""
    notes: tuple[str, ...] = ()
    """What a reader must know about the target, and about the inversion."""

    def forget_scorers(self) -> None:
        """Those of the rungs, and of the rungs under rules: gradients in every basis."""
        self.scorers.clear()
        for ruled in self.effects.rules.values() if self.effects is not None else ():
            ruled.scorers.clear()


@full_precision()
def prepare(
    problem: Problem,
    folder: Path | None,
    extra: Mapping[str, Approximation] | None,
    settings: Settings,
    clock: Clock,
    progress: bool,
    bank: SuppliedBank | None = None,
    plan: Plan | None = None,
    given: Mapping[str, Float[np.ndarray, "Q N"]] = MappingProxyType({}),
) -> BaseModel:
    """Train, build every rung, measure the target, decompose the rungs, gather the gradients.

    Args:
        problem: trained or not.
        folder: where banks are kept.
        extra: rungs of the user's own.
        settings: what to compute.
        clock: gets the seconds of every stage.
        progress: show bars.
        bank: models retrained elsewhere: nothing is retrained, they are the truth.
        plan: the form of every rung; None: all are dense.
        given: scores made elsewhere, checked (see decomposition.scores.elsewhere).

    Raises:
        DecompositionError: the problem does not have the target, or as the stages.
    """
    check_problem(problem, settings.target)
    check_truth(problem, settings, bank)
    extra = beside(settings.also, extra)
    problem = problem.to(resolve_device(settings.device))
    plan = plan or plan_chain(problem, UNLIMITED)
    dense = plan.dense
    with clock.stage("train"):
        trained = problem.trained(progress=progress)
    function = measured_function(settings.target)
    with clock.stage("assemble"):  # before retraining: a rung of the user's own may be wrong
        build = build_lattice if settings.lattice and not plan.no_lattice else build_chain
        plain = build(trained, extra, plan, progress)
        gradients = _gradients(trained, function, dense)
        check_curvature(
            problem, trained, plain, gradients if isinstance(gradients, Gradients) else None
        )
        layers = {block.name: block.slice for block in trained.blocks}
        inversion = as_inversion(settings.inversion)
        rungs, said = inverted_rungs(inversion, plain, layers, dense)

    truth = partial(_truth, trained, plain, settings, folder, clock, progress, bank, dense)
    by_examples = settings.target != "pbrf"  # responses take an eigenbasis
    found = truth() if by_examples else Truth(None)
    with clock.stage("spectra"):
        decompose(plain)
        known = known_of(plain, trained.num_examples, settings.seed, progress=progress)
    if not by_examples:
        found = truth()
    scorers: dict[str, Scorer] = {}
    ruled: dict[str, _Made] = {}
    asked: tuple[str, ...] = ()
    if settings.attribution:
        with clock.stage("scores"):
            told = {name: eigenvalues_of(known, name) for name in plain}
            rotations: Rotations = {}
            images = RowImages(gradients)
            ruled = _rules(settings, plain, layers, gradients, told, dense, found.found is not None)
            masks = 0 if found.found is None else len(found.found.weights)
            scorers = scorers_of(rungs, gradients, told, rotations, images, masks)
            scorers |= baselines(gradients, trained.num_parameters, settings.seed)
            scorers |= {name: FixedScorer(torch.from_numpy(one)) for name, one in given.items()}
            asked = _signs(scorers, given)
    answers, effects, attributes = None, None, {}
    if found.found is not None:
        measured = Measured(found.found.weights, found.found.truth, found.found.second)
        same = {name for name, rung in plain.items() if rungs[name] is rung}
        usable = {n: one for n, one in scorers.items() if n in same or n not in plain}
        rules = {
            name: _ruled(made, plain, gradients, told, rotations, images, usable, masks)
            for name, made in ruled.items()
        }
        effects = Effects(scorers, measured, settings.negative, rules=rules)
        answers, attributes = found.found.bank, found.found.attributes
    return BaseModel(
        trained,
        answers,
        rungs,
        inversion,
        known,
        gradients,
        scorers,
        effects,
        attributes,
        (*found.notes, *asked, *said),
    )


@dataclass(frozen=True)
class _Made:
    """The rungs under a rule, and scorers of those that have been solved."""

    rule: DampingRule
    rungs: RuledRungs
    solved: dict[str, Scorer]


def _rules(
    settings: Settings,
    rungs: Mapping[str, Curvature],
    layers: Mapping[str, slice],
    gradients: GradientSource,
    eigenvalues: Mapping[str, Eigenvalues | None],
    formed: bool,
    wanted: bool,
) -> dict[str, _Made]:
    """Every rule; what takes a further matrix is solved at once, before gradients are rotated."""
    found: dict[str, _Made] = {}
    for name, rule in damping_rules(settings.rules).items() if wanted else ():
        made, solved = ruled_rungs(rule, rungs, eigenvalues, layers, formed), {}
        for rung, one in made.rungs.items() if formed else ():
            if one is not rungs[rung] and one.eigenbasis is None and one.by_spaces is None:
                solved[rung] = SolvingScorer(one, gradients, eigenvalues.get(rung))
                solved[rung].scores(made.strengths[rung], settings.negative)
        found[name] = _Made(rule, made, solved)
    return found


def _ruled(
    made: _Made,
    rungs: Mapping[str, Curvature],
    gradients: GradientSource,
    eigenvalues: Mapping[str, Eigenvalues | None],
    rotations: Rotations,
    images: RowImages,
    scorers: Mapping[str, Scorer],
    masks: int,
) -> Ruled:
    """Every rung under a rule; what no curvature went into stays as it is."""
    under = made.rungs
    same = {name for name, rung in under.rungs.items() if rung is rungs[name]}  # another λ, no more
    kept = {name: one for name, one in scorers.items() if name in same or name not in rungs}
    kept |= made.solved
    other = {name: rung for name, rung in under.rungs.items() if name not in kept}
    found = scorers_of(other, gradients, eigenvalues, rotations, images, masks) | kept
    return Ruled(made.rule, under.rungs, found, under.strengths, dict(under.refused))


def _gradients(problem: Problem, function: QueryFunction, dense: bool) -> GradientSource:
    with spending(GRADIENTS, SCORE):
        return (
            target_gradients(problem, function) if dense else StreamedGradients(problem, function)
        )


def _signs(
    scorers: Mapping[str, Scorer], given: Mapping[str, Float[np.ndarray, "Q N"]]
) -> tuple[str, ...]:
    """What to ask about scores that seem to have the other sign."""
    if not given:
        return ()
    identity = scorers["identity"].scores(0.0)
    found = (sign_note(name, one, identity) for name, one in given.items())
    return tuple(note for note in found if note is not None)


def _truth(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    settings: Settings,
    folder: Path | None,
    clock: Clock,
    progress: bool,
    bank: SuppliedBank | None,
    dense: bool,
) -> Truth:
    with clock.stage("respond" if settings.target == "pbrf" else "retrain"):
        return measured_truth(problem, rungs, settings, folder, progress, bank, affordable=dense)
