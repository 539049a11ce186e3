"""What a common damping costs, beside the approximation itself."""

from __future__ import annotations

from decomposition.report.content import Block, Cell, Table, Text, missing
from decomposition.report.palette import rung_label
from decomposition.report.study import Interval, Study, interval, labels
from decomposition.report.wording import percent, span


def mismatch(study: Study) -> list[Block]:
    """Every rung's gain from its own λ, and the part of the loss that is damping alone."""
    data = study.group("/shares/mismatch")
    if data is None or not {"gap", "mismatch"} <= set(data.data_vars):
        return [missing("What a common damping costs beside the steps is not in this result.")]
    rows: list[tuple[Cell, ...]] = []
    for rung in labels(data["gap"], "rung"):
        gap = interval(data["gap"], rung=rung)
        if gap.known:
            share = interval(data["gap_share"], rung=rung) if "gap_share" in data else None
            rows.append((rung_label(rung, 120), gap, _share(share)))
    whole = interval(data["mismatch"])
    share = interval(data["mismatch_share"]) if "mismatch_share" in data else None
    rows.append(("damping mismatch: K-FAC less Hessian", whole, _share(share)))
    columns = ("rung", "LDS tuned − LDS at equal λ", "share of the loss under equal λ")
    caption = "What equal damping costs each rung, against its own best λ"
    return [Text(_sentence(whole, share)), Table("mismatch", caption, columns, tuple(rows))]


def _share(share: Interval | None) -> Cell:
    return percent(share) if share is not None and share.known else "undefined"


def _sentence(whole: Interval, share: Interval | None) -> str:
    if not whole.known:
        return "The cost of damping mismatch is not known."
    told = f"{span(whole)} of LDS"
    if share is not None and share.known:
        told += f", {percent(share)} of that loss"
    if whole.lower > 0:
        return (
            f"Part of the loss under equal λ belongs to the damping and not to the steps: {told} "
            "goes away when every rung is given its own best λ."
        )
    if whole.upper < 0:
        return f"Giving every rung its own best λ makes the loss larger: mismatch {told}."
    return f"Damping mismatch is not resolved from zero: {told}."
