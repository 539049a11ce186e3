"""Several results on one page: problems, checkpoints or seeds side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr

from decomposition.errors import ResultFileError
from decomposition.report.blame import UNDAMPED, blame, protocols
from decomposition.report.content import Block, Cell, Code, Figure, Section, Table, Text, missing
from decomposition.report.figures.lds_curves import plot_lds_curves
from decomposition.report.figures.shares import plot_shares
from decomposition.report.figures.waterfall import levels, plot_waterfall
from decomposition.report.html import page
from decomposition.report.page import as_tree
from decomposition.report.palette import rung_label
from decomposition.report.study import PROTOCOLS, SHARE_METRICS, STEP_LABELS, Study
from decomposition.report.verdict import sentences, spectral_sentence
from decomposition.report.wording import fixed, isolated, joined
from decomposition.results.schema import CHAIN, STEPS
from decomposition.results.write import output_folder, write_whole

COMPARISON_NAME = "comparison.html"


def write_comparison(
    results: Sequence[xr.DataTree | str | os.PathLike[str]], folder: str | os.PathLike[str]
) -> Path:
    """Write ``folder/comparison.html`` from two or more results and return its path.

    Raises:
        ResultFileError: fewer than two results, or one that cannot be read.
        StoreError: the folder cannot be written.
    """
    found = comparison(results)
    target = output_folder(folder) / COMPARISON_NAME
    html = page(found.title, found.byline, found.version, found.sections)
    write_whole(target, html.encode("utf-8"))
    return target


@dataclass(frozen=True)
class Comparison:
    """What a comparison says, before it is HTML or Markdown."""

    title: str
    byline: str
    version: str
    """Of the software that made the first result."""
    sections: tuple[Section, ...]


def comparison(results: Sequence[xr.DataTree | str | os.PathLike[str]]) -> Comparison:
    """The sections of a comparison.

    Raises:
        ResultFileError: fewer than two results, or one that cannot be read.
    """
    if len(results) < 2:
        raise ResultFileError(f"a comparison needs two results or more, got {len(results)}")
    studies = _named([Study(as_tree(result)) for result in results])
    sections = (
        _answers(studies),
        _levels(studies),
        _shares(studies),
        _curves(studies),
        _provenance(studies),
    )
    title = f"{len(studies)} results side by side"
    version = str(next(iter(studies.values())).attr("library_version"))
    return Comparison(title, joined(list(studies)), version, sections)


def _named(studies: list[Study]) -> dict[str, Study]:
    """Name → study; results of the same problem are numbered."""
    problems = [isolated(study.attr("problem"), 40) for study in studies]
    return {
        f"{name} ({i})" if problems.count(name) > 1 else name: study
        for i, (name, study) in enumerate(zip(problems, studies, strict=True), start=1)
    }


def _answers(studies: dict[str, Study]) -> Section:
    blocks = [
        Text(f"{name}: {' '.join(sentences(study))} {spectral_sentence(study)}")
        for name, study in studies.items()
    ]
    return Section("answer", "The answers", tuple(blocks))


def _levels(studies: dict[str, Study]) -> Section:
    figures: list[Block] = []
    rows: list[tuple[Cell, ...]] = []
    for number, (name, study) in enumerate(studies.items(), start=1):
        for protocol in protocols(study):
            found = levels(study, protocol)
            if not set(found) & set(CHAIN):
                continue
            under = PROTOCOLS.get(protocol, protocol)
            ends = ("ceiling", *CHAIN, "identity", "random")
            rows.append((name, under, *(found.get(row) for row in ends)))
            if protocol == protocols(study)[0]:
                parts = [f"{rung_label(r)} {fixed(v.estimate)}" for r, v in found.items()]
                figures.append(
                    Figure(
                        f"waterfall-{number}",
                        f"{name}: {joined(parts)}.",
                        f"{name}, {under}.",
                        partial(plot_waterfall, study.tree, protocol=protocol),
                    )
                )
    if not rows:
        return Section("levels", "LDS along the chain", (missing("No result holds an LDS."),))
    columns = ("result", "damping", "noise ceiling", *map(rung_label, CHAIN), "identity", "random")
    table = Table("levels", "LDS of each rung", columns, tuple(rows))
    return Section("levels", "LDS along the chain", (*figures, table))


def _shares(studies: dict[str, Study]) -> Section:
    figures: list[Block] = []
    rows: list[tuple[Cell, ...]] = []
    for number, (name, study) in enumerate(studies.items(), start=1):
        for metric in ("lds", UNDAMPED):
            for protocol in protocols(study)[: 1 if metric == UNDAMPED else None]:
                found = blame(study, metric, protocol)
                if found is None or not found.known:
                    continue
                under = "any" if metric == UNDAMPED else PROTOCOLS.get(protocol, protocol)
                largest = STEP_LABELS[found.largest] if found.largest else "not resolved"
                cells = (found.shares.get(s) if found.defined else "undefined" for s in STEPS)
                rows.append((name, SHARE_METRICS[metric], under, *cells, largest))
        if any(row[0] == name and row[1] == SHARE_METRICS["lds"] for row in rows):
            figures.append(
                Figure(
                    f"shares-{number}",
                    f"Shares of the LDS in {name}; the numbers are in the table below.",
                    f"{name}: shares of the LDS.",
                    partial(plot_shares, study.tree, metric="lds"),
                )
            )
    if not rows:
        return Section("shares", "Shares of the steps", (missing("No result holds shares."),))
    steps = (STEP_LABELS[s] for s in STEPS)
    columns = ("result", "metric", "damping", *steps, "largest step")
    table = Table("shares", "Share of each step", columns, tuple(rows), shares=True)
    return Section("shares", "Shares of the steps", (*figures, table))


def _curves(studies: dict[str, Study]) -> Section:
    figures = tuple(
        Figure(
            f"lds-{number}",
            f"LDS against damping in {name}.",
            f"{name}: mean LDS over the grid of λ.",
            partial(plot_lds_curves, study.tree),
        )
        for number, (name, study) in enumerate(studies.items(), start=1)
        if study.array("/attribution", "lds_mean") is not None
    )
    blocks: tuple[Block, ...] = figures or (missing("No result holds an LDS."),)
    return Section("damping", "LDS against damping", blocks)


def _provenance(studies: dict[str, Study]) -> Section:
    names = ("problem", "parameters", "examples", "queries", "created_at", "library_version")
    columns = ("result", "parameters", "examples", "queries", "made at (UTC)", "version")
    rows = tuple(
        (name, *(str(study.attr(a)) for a in names[1:])) for name, study in studies.items()
    )
    table = Table("results", "The results", columns, rows)
    commands = "\n".join(str(study.attr("command")) for study in studies.values())
    return Section("provenance", "Provenance", (table, Code(commands)))
