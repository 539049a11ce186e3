"""The sections of the report, one a file: each takes a study and returns its content."""

from __future__ import annotations

from collections.abc import Callable

from decomposition.report.content import Section
from decomposition.report.sections.answer import answer
from decomposition.report.sections.damping import damping
from decomposition.report.sections.large import large
from decomposition.report.sections.limits import limits
from decomposition.report.sections.methods import methods
from decomposition.report.sections.prediction import prediction
from decomposition.report.sections.provenance import provenance
from decomposition.report.sections.resolution import resolution
from decomposition.report.sections.shares import shares
from decomposition.report.sections.spectra import spectra
from decomposition.report.sections.waterfall import waterfall
from decomposition.report.sections.where import where
from decomposition.report.study import Study

SECTIONS: tuple[Callable[[Study], Section | None], ...] = (
    answer,
    large,
    waterfall,
    shares,
    damping,
    where,
    spectra,
    prediction,
    resolution,
    limits,
    methods,
    provenance,
)
"""In the reader's order; None where a section has no place in a result."""
