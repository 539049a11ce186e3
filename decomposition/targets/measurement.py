"""Every target as what the scoring needs: weights of the examples, and what was measured.

A score τ[q, i] is the change of the measured function on q when example i is removed, so that
−Σ_i w_i τ[q, i] is the change predicted for a change w of the examples' weights. On subsets w is
the mask itself, which differs by a constant; with one example removed w is −1 there and 0
elsewhere, and the prediction is the score, without the sum over all others to round it off.

Shapes: M masks or removed examples, R repeats, N training examples, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from decomposition.curvature.base import Curvature, Diagonalised
from decomposition.problem import Problem
from decomposition.retraining.bank import Bank, retrain_bank
from decomposition.retraining.measures import Measure, measure
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.supplied import SuppliedBank, as_supplied
from decomposition.targets.leave_one_out import LeaveOneOutPlan, removed_examples, without
from decomposition.targets.names import MEASURES, TargetError
from decomposition.targets.pbrf import TOLERANCE, ProximalResponses, proximal_responses

DIGITS = 8
"""Significant digits of λ, which names the responses on disk: its last bits are the machine's."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What really happened to every query."""

    bank: Bank
    """The outputs behind it."""
    weights: np.ndarray
    """(M, N) weights or changes of weights of the examples, up to a constant per column."""
    truth: Float[np.ndarray, "M R Q"]
    """The measured function, or its change."""
    second: Float[np.ndarray, "M2 Q"] | None
    """The first M₂ measured again, for the noise ceiling."""
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
    """
    bank = retrain_bank(problem, plan, folder, progress=progress)
    return Measurement(
        bank,
        bank.masks,
        bank.measurements(problem, function),
        bank.second_measurements(problem, function),
        {"target": function, "measure": MEASURES[function]},
    )


def measure_supplied(problem: Problem, bank: SuppliedBank, function: Measure) -> Measurement:
    """Loss or margin of models that were retrained elsewhere; nothing is retrained.

    Raises:
        BankFileError: the bank does not fit the problem, or holds losses only.
        ProblemError: as ``measure``.
    """
    bank = as_supplied(bank, problem)  # what the model answers now that it is trained
    truth = bank.measurements(problem, function)
    masks, repeats, _ = truth.shape
    return Measurement(
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


def measure_leave_one_out(
    problem: Problem, plan: BankPlan, count: int, folder: Path | None = None, progress: bool = True
) -> Measurement:
    """Change of the loss when the model is retrained without one example, for ``count`` examples.

    Repeats, randomness and seed are those of ``plan``.

    Raises:
        ProblemError, UnsupportedModelError, StoreError: as ``retrain_bank``.
    """
    own = LeaveOneOutPlan.of(plan, count, problem.examples)
    bank = retrain_bank(problem, own, folder, progress=progress)
    base, second = bank.base_measurements(problem), bank.second_measurements(problem)
    return Measurement(
        bank,
        _removal(bank.masks),
        bank.measurements(problem) - base,
        None if second is None else second - base,
        {"target": "leave_one_out", "measure": MEASURES["leave_one_out"]},
        (f"target leave_one_out: {MEASURES['leave_one_out']}; {_removed(own.masks, problem)}",),
    )


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
        TargetError: fewer than four responses converged.
        StoreError: the folder cannot be used.
    """
    assert isinstance(curvature, Diagonalised)
    damping = proximal_damping(problem, curvature, multiple)
    removed = removed_examples(plan.seed, count, problem.examples)
    found = proximal_responses(
        problem, curvature, damping, removed, folder=folder, progress=progress, ggn=ggn
    )
    kept = found.converged
    if kept.sum() < 4:
        raise TargetError(
            f"{kept.sum()} of {len(kept)} proximal responses converged at λ = {damping:.3g} "
            f"({multiple:g} trace(GGN) / P): the objective has no minimum near the trained "
            "parameters there; raise pbrf_damping"
        )
    masks = without(removed[kept], problem.examples)
    outputs = found.outputs[kept, None]
    own = LeaveOneOutPlan.of(plan, int(kept.sum()), problem.examples)
    truth = measure(problem, outputs) - measure(problem, found.base_outputs[None])
    return Measurement(
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


def proximal_damping(problem: Problem, curvature: Curvature, multiple: float) -> float:
    """λ of ``measure_proximal_responses``: ``multiple`` · trace / P, to DIGITS digits."""
    return float(f"{multiple * curvature.trace() / problem.parameters:.{DIGITS}g}")


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
    return f"{count} of {problem.examples} training examples were removed, one at a time"
