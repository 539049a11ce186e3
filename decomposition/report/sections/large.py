"""How a model was studied whose matrices do not fit into memory."""

from __future__ import annotations

import xarray as xr

from decomposition.report.content import Block, Cell, Section, Table, Text
from decomposition.report.palette import rung_label
from decomposition.report.sections.large_spectra import spectra_blocks
from decomposition.report.study import Study, labels
from decomposition.report.wording import number

FORMS = {
    "dual": "The dual form holds the GGN exactly through its N·C × N·C Gram matrix.",
    "structured": "The structured form holds EK-FAC and K-FAC by their factors.",
    "matrix-free": "A matrix-free rung is known by its products: its damped systems are solved by "
    "iteration, its norm is estimated (± standard error), and so is the Hessian's trace; the GGN "
    "and the block GGN have the trace of EK-FAC.",
}
"""What a reader has to know of each."""


def large(study: Study) -> Section | None:
    """Forms, norms and solves of the rungs, and their agreement; None for dense results."""
    data = study.group("/forms")
    if data is None:
        return None
    blocks: list[Block] = [
        Text(
            "The P × P matrices of this model do not fit into the memory given. "
            + " ".join(text for form, text in FORMS.items() if form in data["form"].values)
        )
    ]
    rows = []
    for rung in labels(data["form"], "rung"):
        one = data.sel(rung=rung)
        systems = int(one["systems"])
        per_system = int(one["products"]) / systems if systems else None
        rows.append(
            (
                rung_label(rung, 120),
                str(one["form"].values),
                _pm(float(one["squared_norm"]), float(one["squared_norm_error"])),
                _pm(float(one["trace"]), float(one["trace_error"])),
                systems or None,
                per_system,
                float(one["residual"]) if systems else None,
            )
        )
    columns = (
        "rung",
        "form",
        "squared Frobenius norm",
        "trace",
        "systems solved by iteration",
        "products per system",
        "largest residual",
    )
    blocks.append(Table("large", "How each rung was held", columns, tuple(rows)))
    blocks += spectra_blocks(study)
    agreement = study.array("/attribution", "agreement")
    if agreement is not None:
        blocks += _agreement(study, agreement)
    return Section("large", "How it was computed at this size", tuple(blocks))


def _agreement(study: Study, agreement: xr.DataArray) -> list[Block]:
    """A table of every metric, dampings down and rungs across."""
    rungs, names = labels(agreement, "rung"), {"spearman": "rank correlation"}
    names["top10_jaccard"] = "top 10 shared"
    blocks: list[Block] = [
        Text(
            "Agreement of each rung's scores with those of the best rung that could be solved "
            f"({_reference(study)}): what the cheaper curvature changes in the scores, not whether "
            "they predict retraining."
        )
    ]
    for metric in labels(agreement, "agreement_metric"):
        rows: list[tuple[Cell, ...]] = []
        for damping in agreement["damping"].values:
            here = agreement.sel(agreement_metric=metric, damping=damping)
            rows.append((float(damping), *(_known(float(here.sel(rung=r))) for r in rungs)))
        caption = f"Agreement with the best rung: {names.get(metric, metric)}"
        columns = ("λ", *(rung_label(r, 120) for r in rungs))
        blocks.append(Table(f"agreement-{metric}", caption, columns, tuple(rows)))
    return blocks


def _reference(study: Study) -> str:
    data = study.group("/attribution")
    return rung_label(str(data.attrs["agreement_with"]), 120) if data is not None else ""


def _known(value: float) -> Cell:
    return value if value == value else None


def _pm(value: float, error: float) -> str:
    if value != value:
        return "–"
    return number(value) if error == 0 else f"{number(value)} ± {number(error)}"
