"""Group /cost: what each rung takes by itself; and what it took, by the clock, for its attributes.

Counts are the same on every machine, and are part of the cell. Seconds are measured only where a
clock is given, and are attributes beside the counts, as the times of a run's stages are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decomposition.chain.build import Approximation, account_of, same_as
from decomposition.chain.cost import Cost, Costs, Work
from decomposition.chain.plan import Plan
from decomposition.chain.rungs import Rung
from decomposition.curvature import Curvature
from decomposition.ledger import BUILD, DECOMPOSE, PHASES, SCORE, SOLVE, Ledger, spending
from decomposition.names import LATTICE
from decomposition.problem import Problem
from decomposition.scores.gradients import GradientSource

GRADIENTS = "gradients"
"""Name of the account of all training gradients."""


def cost_group(
    problem: Problem, plan: Plan, rungs: Mapping[str, Curvature], extra: Mapping[str, Approximation]
) -> xr.Dataset:
    """``/cost`` of these rungs and the identity; NaN where nothing is counted.

    Args:
        problem: trained or not.
        plan: the forms of the rungs.
        rungs: all of them, in order; a node that is one with another costs what that does.
        extra: those beside the chain; a function of the user's own has no counts.
    """
    costs = Costs(problem, plan)
    found = {name: _cost(same_as(rungs, name), costs, extra) for name in rungs}
    found["identity"] = costs.identity
    dims = ("rung", "phase")
    counts = {
        name: (dims, np.array([_row(costs, one, name) for one in found.values()]))
        for name in ("examples", "backward_passes", "products", "operations")
    }
    memory = [np.nan if one is None else float(one.memory) for one in found.values()]
    return xr.Dataset(
        counts | {"memory": ("rung", np.array(memory))},
        {"rung": list(found), "phase": list(PHASES)},
    )


def _cost(name: str, costs: Costs, extra: Mapping[str, Approximation]) -> Cost | None:
    if name in LATTICE:
        return costs.of(name)
    rung = extra[name]
    return rung.cost(costs) if isinstance(rung, Rung) else None


def _row(costs: Costs, cost: Cost | None, name: str) -> list[float]:
    """Over the phases."""
    if cost is None:
        return [np.nan] * len(PHASES)
    works = {BUILD: cost.build, DECOMPOSE: cost.decompose, SOLVE: cost.solve, SCORE: costs.score}
    return [_count(costs, works[phase], name) for phase in PHASES]


def _count(costs: Costs, work: Work, name: str) -> float:
    """A product passes all examples, backward twice: once, and for the derivative of that."""
    if name == "operations":
        return costs.operations(work)
    swept = costs.examples * work.products
    counts = {
        "examples": work.examples + swept,
        "backward_passes": work.backward + 2 * swept,
        "products": work.products,
    }
    return counts[name]


def decompose(rungs: Mapping[str, Curvature]) -> None:
    """Make every eigendecomposition that will be needed, charged to its rung."""
    for name, rung in rungs.items():
        with spending(account_of(name), DECOMPOSE):
            if rung.eigenbasis is not None:
                rung.eigenbasis.basis_values()


def solve_once(
    rungs: Mapping[str, Curvature], gradients: GradientSource, damping: float, negative: str
) -> None:
    """One query at one λ for every rung and the identity, charged to it."""
    query = next(iter(gradients.query_parts(1)))[:, :1]
    with spending(account_of("identity"), SOLVE):
        gradients.along(query)
    for name, rung in rungs.items():
        with spending(account_of(name), SOLVE):
            gradients.along(_solution(rung, query, damping, negative))


def _solution(rung: Curvature, query: Tensor, damping: float, negative: str) -> Tensor:
    return torch.nan_to_num(rung.solutions(query, [damping], negative).x[0])


def measured(ledger: Ledger, rungs: Iterable[str]) -> dict[str, str]:
    """Attributes of ``/cost``: seconds of the processor and on the clock, rung → phase."""
    score = ledger.alone(GRADIENTS)
    accounts = {name: ledger.alone(account_of(name)) | score for name in rungs}
    return {
        f"{kind}_seconds": json.dumps(
            {
                name: {phase: round(getattr(one, kind), 6) for phase, one in spent.items()}
                for name, spent in accounts.items()
            }
        )
        for kind in ("processor", "clock")
    }
