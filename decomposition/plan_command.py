"""``decompose plan``: which form every rung would take, what it costs, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from decomposition.device import describe
from decomposition.planner import Plan, Precision, Rates, duration, plan_chain, predicted_seconds
from decomposition.problem import Problem

GIB = 1 << 30


def plan_text(
    problem: Problem, memory: float | None = None, products: Precision = "float64"
) -> str:
    """The table of ``decompose plan``.

    Args:
        problem: to be planned, on the device that it lies on.
        memory: GiB that may be used; default three quarters of what is free there.
    """
    plan = plan_chain(problem, None if memory is None else int(memory * GIB), products)
    return "\n".join(
        _lines(problem, plan, predicted_seconds(problem, plan, Rates.measure(problem, products)))
    )


def _lines(problem: Problem, plan: Plan, seconds: dict[str, float]) -> Iterator[str]:
    yield (
        f"{problem.name}: P = {problem.parameters:,} parameters, N = {problem.examples:,} training "
        f"examples, C = {problem.outputs} outputs, {problem.queries:,} queries; budget "
        f"{plan.budget / GIB:.1f} GiB on {describe(problem.device)}"
    )
    yield ""
    yield f"{'rung':<10} {'form':<12} {'memory':>10} {'time':>9}  why"
    for rung, choice in plan.choices.items():
        yield (
            f"{rung:<10} {choice.way:<12} {choice.memory / GIB:>6.2f} GiB "
            f"{duration(seconds[rung]):>9}  {choice.reason}"
        )
    yield ""
    yield (
        "Time: building the rung and solving for all queries once, from rates measured just now; "
        "memory: the peak, shared between rungs."
    )
    if not plan.dense:
        yield (
            "H is solved by MINRES with EK-FAC as its preconditioner (about 100 products a query "
            "are assumed); another λ costs as much again for matrix-free rungs, little for the "
            "others. Norms of differences with H are estimated, with their errors."
        )
    for note in problem.notes:
        yield f"note: {note}"
