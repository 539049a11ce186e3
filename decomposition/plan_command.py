"""``decompose plan``: which form every rung would take, what it costs, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from decomposition.chain.approximations import approximations
from decomposition.chain.approximations.method import most_memory
from decomposition.chain.build import SAME_BLOCKS
from decomposition.chain.cost import Cost, Costs, Rates, Work, product_seconds
from decomposition.chain.plan import Plan, plan_chain
from decomposition.chain.shared_factors import check_decay_held
from decomposition.curvature.block_products import blocks_agree
from decomposition.curvature.inversion import as_inversion
from decomposition.device import describe
from decomposition.errors import UnsupportedModelError
from decomposition.names import CHAIN
from decomposition.problem import Problem
from decomposition.resources import bytes_of, duration, size_text
from decomposition.retraining.cost import retraining_cost
from decomposition.scores.rules import check_inversion
from decomposition.settings import Settings
from decomposition.spectrum.known import planned_products

Row = tuple[str, str, Cost, str]
"""Rung, form, what it takes by itself, and why."""


def plan_text(problem: Problem, settings: Settings | None = None) -> str:
    """The table of ``decompose plan``.

    Args:
        problem: to be planned, on the device that it lies on.
        settings: of the run that is planned; default those of a run.

    Raises:
        DecompositionError: the plan has no place for the weight decay, or for the inversion.
    """
    settings = settings or Settings()
    budget = bytes_of(settings.memory)
    plan = plan_chain(problem, budget, settings.products, krylov_steps=settings.krylov_steps)
    check_decay_held(problem, plan)
    check_inversion(as_inversion(settings.inversion), plan)
    rates = Rates.measure(problem, settings.products)
    costs = Costs(problem, plan)
    retraining, trained = _retraining(problem, plan, settings)
    said = [retraining]
    rows: list[Row] = [
        (name, choice.way, costs.of(name), choice.reason)
        for name, choice in plan.choices.items()
        if settings.lattice or name in CHAIN
    ]
    if "block_hessian" in plan.choices and settings.lattice and blocks_agree(problem):
        rows = [_one_rung(row) for row in rows]
    rows += _approximations(costs, settings)
    if not plan.dense:
        spectra, measured = _spectra(problem, plan, rates)
        parts = solved_together([cost for _, _, cost, _ in rows], costs, settings.damping_points)
        whole = trained + measured + sum(rates.seconds(work, costs.examples) for work in parts)
        said = [spectra, *said, f"All of it in one run: about {duration(whole)}."]
    table = _table(rows, rates, costs, settings.damping_points)
    return "\n".join(_lines(problem, plan, table, said))


def _one_rung(row: Row) -> Row:
    """Of a rung that is another one here, nothing is made."""
    other = SAME_BLOCKS.get(row[0])
    return row if other is None else (row[0], "", Cost(), f"the same as {other} in this model")


def _approximations(costs: Costs, settings: Settings) -> Iterator[Row]:
    """A row for every approximation beside the chain."""
    most = most_memory(costs.plan)
    for name, method in approximations(settings.also).items():
        fits = method.memory(costs.problem) <= most
        why = method.summary if fits else "does not fit: it would be refused"
        yield name, method.form, method.cost(costs), why


def _table(rows: list[Row], rates: Rates, costs: Costs, dampings: int) -> Iterator[str]:
    """The rungs, each as if it were taken alone."""
    examples, queries = costs.examples, costs.problem.num_queries
    wide = max(10, *(len(row[0]) for row in rows))
    heads = (f"{'rung':<{wide}} {'form':<12} {'memory':>10}", "once", "a query", "a run")
    yield "{} {:>9} {:>9} {:>9}  why".format(*heads)
    for rung, form, cost, why in rows:
        works = (cost.build + cost.decompose, cost.solve, cost.at_once(queries, dampings))
        once, query, run = (duration(rates.seconds(work, examples)) for work in works)
        memory = size_text(cost.memory)
        yield f"{rung:<{wide}} {form:<12} {memory:>10} {once:>9} {query:>9} {run:>9}  {why}"


def solved_together(rungs: list[Cost], costs: Costs, dampings: int) -> list[Work]:
    """What a run takes for them: what they are made of once, for it is shared, and solutions."""
    queries = costs.problem.num_queries
    made = max((one.build + one.decompose for one in rungs), key=costs.operations)
    each = [one.at_once(queries, dampings) + (one.build + one.decompose) * -1.0 for one in rungs]
    return [made, *each]


def _spectra(problem: Problem, plan: Plan, rates: Rates) -> tuple[str, float]:
    """What the estimates of spectra and errors would take, in words and seconds."""
    counts, each = planned_products(plan, problem), product_seconds(problem, plan, rates)
    total = sum(counts[rung] * each[rung] for rung in counts)
    said = (
        f"Spectra and errors of the steps ({counts['hessian']} products with H): about "
        f"{duration(total)}."
    )
    return said, total


def _retraining(problem: Problem, plan: Plan, settings: Settings) -> tuple[str, float]:
    """What the bank of a run would take, and whether a run would train it; its seconds if so."""
    bank = settings.plan
    try:
        cost = retraining_cost(problem, bank)
    except UnsupportedModelError as error:
        return f"Retraining: not possible here ({error}).", 0.0
    said = (
        f"Retraining {cost.models:,} models for the LDS (--masks {bank.masks}), "
        f"{cost.steps:,} steps each: about {duration(cost.seconds)}, from a few steps timed just "
        "now"
    )
    if plan.dense or cost.hours <= settings.retrain_hours:
        return f"{said}.", cost.seconds
    more = (
        f"{said}. That is more than --retrain-hours ({settings.retrain_hours:g}): a run would "
        "leave it out; raise it, lower --masks, or give --bank."
    )
    return more, 0.0


def _lines(problem: Problem, plan: Plan, table: Iterator[str], said: list[str]) -> Iterator[str]:
    yield (
        f"{problem.name}: P = {problem.num_parameters:,} parameters, N = "
        f"{problem.num_examples:,} training examples, C = {problem.num_outputs} outputs, "
        f"{problem.num_queries:,} queries; budget {size_text(plan.budget)} on "
        f"{describe(problem.device)}"
    )
    yield ""
    yield from table
    yield ""
    together = max(choice.memory for choice in plan.choices.values())
    yield (
        "Each rung taken by itself, from rates measured just now. Once: building and decomposing "
        "it; a query: solving for it at one λ; a run: both, for all queries at all dampings. "
        f"Memory: its peak; a run, whose rungs share matrices, peaks at {size_text(together)}."
    )
    if not plan.dense:
        space = plan.dimensions(problem.num_parameters, problem.num_queries)
        yield (
            f"Matrix-free rungs are solved in one Krylov space of all queries, of {space:,} "
            f"dimensions (at most {plan.krylov_steps} for each: --krylov-steps; as many as fit: "
            "--memory), which serves every λ; a query is its part of it. Norms of differences with "
            "H are estimated, with their errors."
        )
        if plan.no_lattice:
            yield f"Orders: {plan.no_lattice}."
    yield from said
    for note in problem.notes:
        yield f"note: {note}"
