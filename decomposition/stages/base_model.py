"""One base model from training to scored rungs: what a run does once per base seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from decomposition.attribution.influence import Gradients, loss_gradients
from decomposition.attribution.scorer import FixedScorer, Scorer, scorer, scorers_of
from decomposition.chain.build import Approximation, build_chain, build_lattice
from decomposition.chain.frobenius import frobenius_split
from decomposition.curvature import Curvature, ScaledIdentity
from decomposition.problem import Problem
from decomposition.retraining.bank import Bank, retrain_bank
from decomposition.settings import Settings
from decomposition.stages.selection import Measured
from decomposition.stages.spectra import decompose_all


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


def prepare(
    problem: Problem,
    folder: Path | None,
    extra: Mapping[str, Approximation] | None,
    settings: Settings,
    clock: Clock,
    progress: bool,
) -> BaseModel:
    """Train, build every rung, retrain, decompose the rungs, and rotate the gradients."""
    with clock.stage("train"):
        trained = problem.trained(progress=progress)
    with clock.stage("assemble"):  # before retraining: a rung of the user's own may be wrong
        rungs = (build_lattice if settings.lattice else build_chain)(trained, extra)
        split = frobenius_split(rungs)
        gradients = loss_gradients(trained)
    bank = measured = None
    if settings.attribution:
        with clock.stage("retrain"):
            store = None if folder is None else folder / "bank"
            bank = retrain_bank(trained, settings.plan, store, progress=progress)
            measured = Measured(
                bank.masks, bank.measurements(trained), bank.second_measurements(trained)
            )
    with clock.stage("eigendecompositions"):
        decompose_all(rungs, progress)
    scorers: dict[str, Scorer] = {}
    if settings.attribution:
        with clock.stage("scores"):
            scorers = scorers_of(rungs, gradients)
            scorers |= _baselines(trained, rungs, gradients, settings)
    return BaseModel(trained, bank, measured, rungs, split, gradients, scorers)


def _baselines(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    gradients: Gradients,
    settings: Settings,
) -> dict[str, Scorer]:
    """Identity scaled to trace H / P, and random scores."""
    scale = abs(rungs["hessian"].trace()) / problem.parameters
    identity = ScaledIdentity(problem.parameters, scale)
    return {
        "identity": scorer(identity, gradients),
        "random": FixedScorer(problem.queries, problem.examples, settings.seed),
    }
