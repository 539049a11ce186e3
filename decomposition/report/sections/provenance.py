"""How to make the result again, and what made it."""

from __future__ import annotations

import json

from decomposition.report.content import Block, Cell, Code, Details, Table, Text, missing
from decomposition.report.result import Result
from decomposition.report.sections.methods import methods_blocks


def provenance_blocks(result: Result) -> list[Block]:
    """Command, configuration, seeds, versions, hardware and times."""
    command = str(result.attr("command"))
    head: list[Block] = [missing("The result does not say with which command it was made.")]
    if command:
        head = [Text(f"Made again by: {command}")]
    blocks: list[Block] = [_run(result)]
    for name, caption, columns in (
        ("timings", "Time by stage", ("stage", "seconds")),
        ("versions", "Versions", ("package", "version")),
        ("hardware", "Hardware", ("what", "value")),
        ("seeds", "Seeds", ("purpose", "seed")),
    ):
        rows = tuple((key, _cell(value)) for key, value in dict(result.json(name)).items())
        if rows:
            blocks.append(Table(name, caption, columns, rows))
    config = json.dumps(result.json("config"), indent=2, sort_keys=True, ensure_ascii=False)
    blocks += [Text("The whole configuration:"), Code(config, download="config.json")]
    told = "Definitions, references, the words of this page, the run and its configuration"
    return [*head, Details("details", told, (*methods_blocks(result), *blocks))]


def _run(result: Result) -> Table:
    names = {
        "problem": "problem",
        "study": "study",
        "factor": "what varies",
        "ci_level": "level of the intervals",
        "created_at": "made at (UTC)",
        "library_version": "version of this software",
        "schema_version": "schema of the result",
        "device": "device",
        "dtype": "precision of the curvature",
    }
    rows = tuple(
        (text, str(result.attr(name))) for name, text in names.items() if result.attr(name) != ""
    )
    return Table("run", "The run", ("what", "value"), rows)


def _cell(value: object) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return str(value) if isinstance(value, int) else value
