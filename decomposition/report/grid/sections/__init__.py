"""The sections of a study's page, one a file: each takes a grid and returns its content."""

from __future__ import annotations

from collections.abc import Callable

from decomposition.report.grid.cells import Grid
from decomposition.report.grid.content import StudySection
from decomposition.report.grid.sections.cells import cells
from decomposition.report.grid.sections.claims import claims
from decomposition.report.grid.sections.frobenius import frobenius
from decomposition.report.grid.sections.ladder import ladder
from decomposition.report.grid.sections.levels import levels
from decomposition.report.grid.sections.provenance import provenance
from decomposition.report.grid.sections.reading import reading
from decomposition.report.grid.sections.shares import shares
from decomposition.report.grid.sections.trends import trends

SECTIONS: tuple[Callable[[Grid], StudySection], ...] = (
    claims,
    levels,
    shares,
    frobenius,
    trends,
    ladder,
    cells,
    reading,
    provenance,
)
"""In the reader's order."""
