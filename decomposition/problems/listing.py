"""What ``decompose problems`` prints: the built-in problems, and how data files are named."""

from __future__ import annotations

from decomposition.losses import CrossEntropy
from decomposition.problem import Problem
from decomposition.problems.options import RECIPE, VARIANT
from decomposition.problems.registry import BUILT_IN, FILES, OWN_OPTIONS, make_problem

EXAMPLES = (
    "digits?hidden=16&activation=tanh&epochs=100",
    "teacher?label_noise=0.2&examples=400",
    "chars?hidden=8&length=12&examples=1000",
    "idx:mnist/?pool=2&examples=2000",
    "csv:abalone.data?target=last&task=regression",
    "npz:mine.npz?x=features&y=labels",
)


def listing() -> str:
    """Name, N, P, task and one line for every built-in problem; formats, options, examples."""
    rows = [("name", "N", "queries", "P", "task", "")]
    rows += [_row(name, make_problem(name)) for name in BUILT_IN]
    lines = [
        f"{name:16} {n:>5} {q:>7} {p:>9}  {task:14}  {line}".rstrip()
        for name, n, q, p, task, line in rows
    ]
    for name, options in OWN_OPTIONS.items():
        lines += ["", f"{name} has options of its own:"]
        lines += [f"  {option:12} {meaning}" for option, meaning in options.items()]
    for kind in FILES.values():
        lines += ["", f"{kind.usage:22} {_first_line(kind.read.__doc__)}"]
        lines += [f"  {option:12} {meaning}" for option, meaning in kind.options.items()]
    lines += ["", "Every problem above takes these options, as ?option=value&option=value:"]
    lines += [f"  {option:12} {meaning}" for option, meaning in (VARIANT | RECIPE).items()]
    lines += ["", "Examples (quoted, because the shell reads ? and &):"]
    lines += [f"  decompose run '{example}' --out out/" for example in EXAMPLES]
    lines += ["", "Your own: decompose run file.py:function, where the function returns a Problem."]
    return "\n".join(lines)


def _row(name: str, problem: Problem) -> tuple[str, ...]:
    task = "classification" if isinstance(problem.query_loss, CrossEntropy) else "regression"
    sizes = (problem.num_examples, problem.num_queries, problem.num_parameters)
    return (name, *(f"{size:,}" for size in sizes), task, _first_line(BUILT_IN[name].__doc__))


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]
