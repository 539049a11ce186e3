"""``decompose plan``: which form every rung would take, what it costs, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from decomposition.chain.approximations import approximations
from decomposition.chain.approximations.method import most_memory
from decomposition.chain.plan import (
    Plan,
    Rates,
    duration,
    plan_chain,
    predicted_seconds,
    product_seconds,
)
from decomposition.chain.shared_factors import check_decay_held
from decomposition.device import describe
from decomposition.errors import UnsupportedModelError
from decomposition.names import CHAIN
from decomposition.problem import Problem
from decomposition.resources import bytes_of, size_text
from decomposition.retraining.cost import retraining_cost
from decomposition.settings import Settings
from decomposition.spectrum.known import planned_products

Row = tuple[str, str, int, float, str]
"""Rung, form, bytes, seconds and why."""


def plan_text(problem: Problem, settings: Settings | None = None) -> str:
    """The table of ``decompose plan``.

    Args:
        problem: to be planned, on the device that it lies on.
        settings: of the run that is planned; default those of a run.

    Raises:
        DecompositionError: the plan has no place for the weight decay.
    """
    settings = settings or Settings()
    budget = bytes_of(settings.memory)
    plan = plan_chain(problem, budget, settings.products, krylov_steps=settings.krylov_steps)
    check_decay_held(problem, plan)
    rates = Rates.measure(problem, settings.products)
    seconds = predicted_seconds(problem, plan, rates, settings.damping_points)
    said = [_retraining(problem, plan, settings)]
    rows = [
        (name, choice.way, choice.memory, seconds[name], choice.reason)
        for name, choice in plan.choices.items()
        if settings.lattice or name in CHAIN
    ]
    rows += _approximations(problem, plan, rates, settings)
    if not plan.dense:
        said.insert(0, _spectra(problem, plan, rates))
    return "\n".join(_lines(problem, plan, rows, said))


def _approximations(
    problem: Problem, plan: Plan, rates: Rates, settings: Settings
) -> Iterator[Row]:
    """A row for every approximation beside the chain."""
    one_pass = problem.num_outputs * rates.exact_sweep * problem.num_examples
    products = product_seconds(problem, plan, rates)
    for name, method in approximations(settings.also).items():
        work, memory = method.work(problem, settings.damping_points), method.memory(problem)
        seconds = work.passes * one_pass + work.products * products[work.of]
        why = method.summary if memory <= most_memory(plan) else "does not fit: it would be refused"
        yield name, method.form, memory, seconds, why


def _spectra(problem: Problem, plan: Plan, rates: Rates) -> str:
    """What the estimates of spectra and errors would take."""
    counts, each = planned_products(plan, problem), product_seconds(problem, plan, rates)
    total = sum(counts[rung] * each[rung] for rung in counts)
    return (
        f"Spectra and errors of the steps ({counts['hessian']} products with H): about "
        f"{duration(total)}."
    )


def _retraining(problem: Problem, plan: Plan, settings: Settings) -> str:
    """What the bank of a run would take, and whether a run would train it."""
    bank = settings.plan
    try:
        cost = retraining_cost(problem, bank)
    except UnsupportedModelError as error:
        return f"Retraining: not possible here ({error})."
    said = (
        f"Retraining {cost.models:,} models for the LDS (--masks {bank.masks}), "
        f"{cost.steps:,} steps each: about {duration(cost.seconds)}, from a few steps timed just "
        "now"
    )
    if plan.dense or cost.hours <= settings.retrain_hours:
        return f"{said}."
    return (
        f"{said}. That is more than --retrain-hours ({settings.retrain_hours:g}): a run would "
        "leave it out; raise it, lower --masks, or give --bank."
    )


def _lines(problem: Problem, plan: Plan, rows: list[Row], said: list[str]) -> Iterator[str]:
    yield (
        f"{problem.name}: P = {problem.num_parameters:,} parameters, N = "
        f"{problem.num_examples:,} training examples, C = {problem.num_outputs} outputs, "
        f"{problem.num_queries:,} queries; budget {size_text(plan.budget)} on "
        f"{describe(problem.device)}"
    )
    yield ""
    wide = max(10, *(len(row[0]) for row in rows))
    yield f"{'rung':<{wide}} {'form':<12} {'memory':>10} {'time':>9}  why"
    for rung, form, memory, seconds, why in rows:
        yield (f"{rung:<{wide}} {form:<12} {size_text(memory):>10} {duration(seconds):>9}  {why}")
    yield ""
    yield (
        "Time: building the rung and solving for all queries at all dampings, from rates measured "
        "just now; memory: the peak, shared between rungs."
    )
    if not plan.dense:
        yield (
            f"Matrix-free rungs are solved in a Krylov space for each query ({plan.krylov_steps} "
            "products: --krylov-steps), which serves every λ. Norms of differences with H are "
            "estimated, with their errors."
        )
        if plan.no_lattice:
            yield f"Orders: {plan.no_lattice}."
    yield from said
    for note in problem.notes:
        yield f"note: {note}"
