"""Section 10: how to make the result again, and what made it."""

from __future__ import annotations

import json

from decomposition.report.content import Block, Cell, Code, Section, Table, Text
from decomposition.report.study import Study


def provenance(study: Study) -> Section:
    """Command, configuration, seeds, versions, hardware and times."""
    blocks: list[Block] = [
        Text("The exact command:"),
        Code(str(study.attr("command"))),
        _run(study),
    ]
    for name, caption, columns in (
        ("timings", "Time by stage", ("stage", "seconds")),
        ("versions", "Versions", ("package", "version")),
        ("hardware", "Hardware", ("what", "value")),
        ("seeds", "Seeds", ("purpose", "seed")),
    ):
        rows = tuple((key, _cell(value)) for key, value in dict(study.json(name)).items())
        if rows:
            blocks.append(Table(name, caption, columns, rows))
    config = json.dumps(study.json("config"), indent=2, sort_keys=True, ensure_ascii=False)
    blocks += [Text("The whole configuration:"), Code(config, download="config.json")]
    return Section("provenance", "Provenance", tuple(blocks))


def _run(study: Study) -> Table:
    names = {
        "problem": "problem",
        "created_at": "made at (UTC)",
        "library_version": "version of this software",
        "schema_version": "schema of the result",
        "device": "device",
        "dtype": "precision of the curvature",
    }
    rows = tuple((text, str(study.attr(name))) for name, text in names.items())
    return Table("run", "The run", ("what", "value"), rows)


def _cell(value: object) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return str(value) if isinstance(value, int) else value
