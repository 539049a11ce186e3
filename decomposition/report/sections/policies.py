"""What each treatment of negative eigenvalues makes of the indefinite rungs."""

from __future__ import annotations

from functools import partial

from decomposition.report.content import Block, Cell, Figure, Table, Text, missing
from decomposition.report.figures.policies import most_negative, plot_policies
from decomposition.report.palette import rung_label
from decomposition.report.study import POLICIES, Study, interval, labels
from decomposition.report.wording import joined, number, span


def policies(study: Study) -> list[Block]:
    """A curve per policy of the Hessian, and the table of all indefinite rungs."""
    data = study.group("/policies")
    if data is None or "level" not in data:
        return [missing("Negative-curvature policies are not compared in this result.")]
    rungs = labels(data["level"], "rung")
    blocks: list[Block] = [
        Text(
            "Rungs with negative eigenvalues μ need a rule for them before they are damped. Each "
            "policy is given its own best λ, cross-fitted. “signed” with λ below |λ_min| inverts "
            "an indefinite matrix; a level read there is flagged."
        )
    ]
    if "lds_by_damping" in data:
        blocks.append(_figure(study, rungs[0]))
    return [*blocks, _table(study)]


def _figure(study: Study, rung: str) -> Figure:
    data = study.group("/policies")
    assert data is not None
    levels = {
        p: interval(data["level"], policy=p, rung=rung) for p in labels(data["level"], "policy")
    }
    parts = [f"{policy} {span(value)}" for policy, value in levels.items() if value.known]
    edge = most_negative(study, rung)
    below = f" |λ_min| is {number(edge)}." if edge is not None else ""
    curve = data["lds_by_damping"].sel(rung=rung)
    rows = tuple(
        (policy, float(at), float(curve.sel(policy=policy, damping=at)))
        for policy in labels(curve, "policy")
        for at in curve["damping"].values.tolist()
    )
    return Figure(
        "policies",
        f"LDS of the {rung_label(rung)} against damping by policy; at its best λ: "
        f"{joined(parts)}.{below}",
        f"Estimates over the grid of λ, without bands; at its own best λ, {joined(parts)}.{below}",
        partial(plot_policies, study.tree, rung=rung),
        Table("policies-data", f"LDS of {rung} by policy", ("policy", "λ", "LDS"), rows),
    )


def _table(study: Study) -> Table:
    data = study.group("/policies")
    assert data is not None
    rows: list[tuple[Cell, ...]] = []
    for rung in labels(data["level"], "rung"):
        for policy in labels(data["level"], "policy"):
            place = {"policy": policy, "rung": rung}
            value = interval(data["level"], **place)
            at = float(data["level_damping"].sel(place)) if "level_damping" in data else None
            flagged = "indefinite" in data and int(data["indefinite"].sel(place)) == 1
            reading = "indefinite: λ < |λ_min|" if flagged else "definite"
            if not value.known:
                reading = "no λ of the grid can be inverted"
            name = POLICIES.get(policy, policy)
            rows.append(
                (rung_label(rung, 120), name, value, at, most_negative(study, rung), reading)
            )
    columns = ("rung", "policy", "LDS at its best λ", "λ (mean over folds)", "|λ_min|", "matrix")
    caption = "Policies for negative eigenvalues"
    return Table("policies", caption, columns, tuple(rows))
