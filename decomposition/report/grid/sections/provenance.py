"""Section 9: how to make the study again, and what made it."""

from __future__ import annotations

import json

from decomposition.report.content import Code, Table, Text, missing
from decomposition.report.grid.cells import Grid
from decomposition.report.grid.content import StudyBlock, StudySection


def provenance(grid: Grid) -> StudySection:
    """Command, versions and the whole configuration."""
    command = str(grid.attr("command"))
    blocks: list[StudyBlock] = [Text("The exact command:"), Code(command)]
    if not command:
        blocks = [missing("The study does not say with which command it was made.")]
    names = {
        "study": "study",
        "created_at": "made at (UTC)",
        "library_version": "version of this software",
        "factor": "what varies",
        "ci_level": "level of the intervals",
    }
    run = tuple(
        (text, str(grid.attr(name))) for name, text in names.items() if name in grid.tree.attrs
    )
    blocks.append(Table("run", "The study", ("what", "value"), run))
    versions = tuple((str(k), str(v)) for k, v in dict(grid.json("versions")).items())
    if versions:
        blocks.append(Table("versions", "Versions", ("package", "version"), versions))
    config = json.dumps(grid.json("config"), indent=2, sort_keys=True, ensure_ascii=False)
    blocks += [Text("The whole configuration:"), Code(config, download="config.json")]
    return StudySection("provenance", "Provenance", tuple(blocks))
