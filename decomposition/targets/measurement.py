"""Every target as what the scoring needs: weights of the examples, and what was measured.

A score τ[q, i] is the change of the measured function on q when example i is removed, so that
−Σ_i w_i τ[q, i] is the change predicted for a change w of the examples' weights. On subsets w is
the mask itself, which differs by a constant; with one example removed w is −1 there and 0
elsewhere, and the prediction is the score, without the sum over all others to round it off.

Equal masks are repeats of one mask: what was measured under them is averaged, so that ranks, folds
and resamples are over distinct masks. A query whose measurements vary by rounding alone has one
truth for all masks, and no correlation.

Shapes: M masks or removed examples, D distinct ones, R repeats, N training examples, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from decomposition.curvature.operator import Curvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem
from decomposition.retraining import distinct
from decomposition.retraining.bank import Bank, retrain_bank
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.supplied import BankFileError, SuppliedBank, as_supplied
from decomposition.targets.functions import MEASURES, ONE_AT_A_TIME, Measure, TargetError, measure
from decomposition.targets.leave_one_out import LeaveOneOutPlan, removed_examples, without
from decomposition.targets.pbrf import TOLERANCE, ProximalResponses, proximal_responses
from decomposition.targets.variation import constant_words, stronger, unmoved

DIGITS = 8
"""Significant digits of λ, which names the responses on disk: its last bits are the machine's."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What really happened to every query."""

    bank: Bank
    """The outputs behind it, of all masks."""
    weights: np.ndarray
    """(D, N) weights or changes of weights of the examples, up to a constant per column."""
    truth: Float[np.ndarray, "D R Q"]
    """The measured function, or its change; constant where it varied by rounding alone."""
    second: Float[np.ndarray, "D2 Q"] | None
    """The first D₂ measured again, for the noise ceiling."""
    attributes: dict[str, str | float]
    """What the levels are, for the result's ``/attribution``."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""


def measure_subsets(
    problem: Problem,
    plan: BankPlan,
    function: Measure = "loss",
    folder: Path | None = None,
    progress: bool = True,
) -> Measurement:
    """Loss or margin of models retrained on the plan's subsets.

    Raises:
        ProblemError, UnsupportedModelError, StoreError: as ``retrain_bank`` and ``measure``.
        TargetError: it is the same for all models, on every query.
    """
    bank = retrain_bank(problem, plan, folder, progress=progress)
    found = Measurement(
        bank,
        bank.masks,
        bank.measurements(problem, function),
        bank.second_measurements(problem, function),
        {"target": function, "measure": MEASURES[function]},
    )
    return _varying(found, TargetError, f"retraining changed nothing: {stronger(problem)}")


def measure_supplied(problem: Problem, bank: SuppliedBank, function: Measure) -> Measurement:
    """Loss or margin of models that were retrained elsewhere; nothing is retrained.

    Raises:
        BankFileError: the bank does not fit the problem, holds losses only, or what it holds is
            the same for all masks, on every query.
        ProblemError: as ``measure``.
    """
    bank = as_supplied(bank, problem)  # what the model answers now that it is trained
    truth = bank.measurements(problem, function)
    masks, repeats, _ = truth.shape
    found = Measurement(
        bank,
        bank.masks,
        truth,
        bank.second_measurements(problem, function),
        {
            "target": function,
            "measure": MEASURES[function],
            "truth": "supplied_bank",
            "bank_source": bank.source,
        },
        (
            f"the truth is a supplied bank ({bank.source}: {masks} masks that keep "
            f"{bank.plan.alpha:.3g} of the examples on average, {repeats} per mask): its models "
            "were retrained elsewhere, and that they were trained as the problem's recipe says "
            "cannot be checked",
        ),
    )
    return _varying(found, BankFileError, SAME_MODEL, f"{bank.source}: ")


def measure_leave_one_out(
    problem: Problem, plan: BankPlan, count: int, folder: Path | None = None, progress: bool = True
) -> Measurement:
    """Change of the loss when the model is retrained without one example, for ``count`` examples.

    Repeats, randomness and seed are those of ``plan``.

    Raises:
        ProblemError, UnsupportedModelError, StoreError: as ``retrain_bank``.
        TargetError: no removal changes it, on any query.
    """
    own = LeaveOneOutPlan.of(plan, count, problem.num_examples)
    bank = retrain_bank(problem, own, folder, progress=progress)
    base, second = bank.base_measurements(problem), bank.second_measurements(problem)
    found = Measurement(
        bank,
        _removal(bank.masks),
        bank.measurements(problem) - base,
        None if second is None else second - base,
        {"target": "leave_one_out", "measure": MEASURES["leave_one_out"]},
        (f"target leave_one_out: {MEASURES['leave_one_out']}; {_removed(own.masks, problem)}",),
    )
    return _varying(found, TargetError, f"retraining changed nothing: {stronger(problem)}")


def measure_proximal_responses(
    problem: Problem,
    curvature: Curvature,
    multiple: float,
    plan: BankPlan,
    count: int,
    folder: Path | None = None,
    progress: bool = True,
    ggn: Curvature | None = None,
) -> Measurement:
    """Change of the loss by the proximal Bregman response to the removal of ``count`` examples.

    λ is ``multiple`` · trace(GGN) / P, the trace that of ``curvature``: the GGN itself, or EK-FAC,
    which has the same, with ``ggn`` (see ``proximal_responses``). The examples are those of
    ``measure_leave_one_out``.
    A response that did not converge is left out, and a note says so. Nothing is random in a
    response: measured again it is the same, and its noise ceiling is 1.

    Raises:
        TargetError: fewer than ``distinct.LEAST`` responses converged, or all are the same.
        StoreError: the folder cannot be used.
    """
    metric = curvature.eigenbasis
    assert metric is not None
    damping = proximal_damping(problem, curvature, multiple)
    removed = removed_examples(plan.seed, count, problem.num_examples)
    found = proximal_responses(
        problem, metric, damping, removed, folder=folder, progress=progress, ggn=ggn
    )
    kept = found.converged
    if kept.sum() < min(distinct.LEAST, len(kept)):
        raise TargetError(
            f"{kept.sum()} of {len(kept)} proximal responses converged at λ = {damping:.3g} "
            f"({multiple:g} trace(GGN) / P): the objective has no minimum near the trained "
            "parameters there; raise pbrf_damping"
        )
    masks = without(removed[kept], problem.num_examples)
    outputs = found.outputs[kept, None]
    own = LeaveOneOutPlan.of(plan, int(kept.sum()), problem.num_examples)
    truth = measure(problem, outputs) - measure(problem, found.base_outputs[None])
    measurement = Measurement(
        Bank(own, masks, outputs, None, found.base_outputs),
        _removal(masks),
        truth,
        truth[:, 0],
        {
            "target": "pbrf",
            "measure": MEASURES["pbrf"],
            "pbrf_damping": damping,
            "pbrf_residual": float(found.residual[kept].max()),
            "pbrf_unconverged": int((~kept).sum()),
            "ceiling_source": "deterministic",
        },
        _proximal_notes(found, problem, multiple),
    )
    return _varying(measurement, TargetError, "no response moved: lower pbrf_damping")


SAME_MODEL = (
    "the bank is as if one model had answered under every mask: write what each model answers "
    "that was trained on the mask's own examples"
)


def _varying(
    found: Measurement, error: type[DecompositionError], way_out: str, source: str = ""
) -> Measurement:
    """``found`` over distinct masks, queries that vary by rounding alone made constant, with notes.

    Raises:
        DecompositionError: of the kind ``error``, where no query varies.
    """
    target, masks = found.attributes["target"], len(found.bank.masks)
    models = f"{masks} " + ("removed examples" if target in ONE_AT_A_TIME else "masks")
    group = distinct.groups(found.bank.masks)
    _, first = np.unique(group, return_index=True)
    truth, second = distinct.means(found.truth, group), found.second
    if second is not None:
        second = distinct.means(second, group[: len(second)])
    still = unmoved(found.bank.answers) | unmoved(truth)
    words = constant_words("margin" if target == "margin" else "loss", still, models)
    if still.all():
        raise error(f"{source}{words}, up to rounding: there is nothing to rank; {way_out}")
    notes = list(found.notes)
    if still.any():
        truth[..., still] = truth[..., still].mean((0, 1))
        notes.append(f"{words}, up to rounding: no LDS there, and means are over the others")
    if len(first) < masks:
        notes.append(
            f"{len(first)} of {masks} masks are distinct: equal masks count as repeats of one, and "
            f"intervals are over {len(first)}"
        )
    if len(first) < distinct.FEW:
        notes.append(
            f"{len(first)} distinct masks are few: intervals are too narrow (those of 95% hold the "
            f"truth in 80 to 90% of studies with 8 to 20 masks): use {distinct.FEW} or more"
        )
    return replace(
        found, weights=found.weights[first], truth=truth, second=second, notes=tuple(notes)
    )


def proximal_damping(problem: Problem, curvature: Curvature, multiple: float) -> float:
    """λ of ``measure_proximal_responses``: ``multiple`` · trace / P, to DIGITS digits."""
    return float(f"{multiple * curvature.trace() / problem.num_parameters:.{DIGITS}g}")


def _proximal_notes(found: ProximalResponses, problem: Problem, multiple: float) -> tuple[str, ...]:
    kept = found.converged
    notes = [
        f"target pbrf: {MEASURES['pbrf']}; {_removed(len(kept), problem)}, at λ = "
        f"{found.damping:.3g} ({multiple:g} trace(GGN) / P), to a gradient of at most "
        f"{found.residual[kept].max():.1g} of its first value; responses are deterministic, so "
        "their noise ceiling is 1"
    ]
    if not kept.all():
        notes.append(
            f"{(~kept).sum()} of {len(kept)} proximal responses did not converge to {TOLERANCE:g} "
            "and are left out, which removes the most influential examples from the measure: "
            "raise --pbrf-damping"
        )
    return tuple(notes)


def _removal(masks: np.ndarray) -> np.ndarray:
    """(M, N) changes of weight: −1 where an example was removed."""
    return masks.astype(np.int8) - np.int8(1)


def _removed(count: int, problem: Problem) -> str:
    return f"{count} of {problem.num_examples} training examples were removed, one at a time"
