"""The sections of the report: what each needs of a result, and what it says about it.

A page of one cell and a page of many are the same sections. A section whose groups are all absent
is left out; the limits say what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from decomposition.report.content import Block, Filled, arranged
from decomposition.report.result import Result
from decomposition.report.sections.answer import answer, claims_blocks, own_claim_blocks
from decomposition.report.sections.beside import beside_blocks
from decomposition.report.sections.cost import cost_blocks
from decomposition.report.sections.damping import damping_blocks
from decomposition.report.sections.errors import prediction_blocks
from decomposition.report.sections.levels import level_blocks
from decomposition.report.sections.limits import limits_blocks
from decomposition.report.sections.over_cells import cell_blocks, ladder_blocks, trend_blocks
from decomposition.report.sections.provenance import provenance_blocks
from decomposition.report.sections.resolution import resolution_blocks
from decomposition.report.sections.rules import rule_blocks
from decomposition.report.sections.shares import share_blocks
from decomposition.report.sections.spectra import spectra_blocks
from decomposition.report.sections.where import where_blocks


@dataclass(frozen=True)
class Section:
    """One section of the report."""

    anchor: str
    title: str
    build: Callable[[Result], list[Block]]
    """Result → words, figures and tables; nothing where it has nothing to say."""
    needs: tuple[str, ...] = ()
    """Groups of the result of which one at least has to be there."""

    def fill(self, result: Result) -> Filled | None:
        """The section as it stands on the page of ``result``, or None."""
        there = not self.needs or any(result.group(path) is not None for path in self.needs)
        blocks = self.build(result) if there else []
        return arranged(self.anchor, self.title, blocks) if blocks else None


SECTIONS = (
    Section("answer", "The answer", answer),
    Section("claims", "The claims", claims_blocks, ("/claims",)),
    Section("levels", "From the exact Hessian to K-FAC", level_blocks, ("/shares",)),
    Section("shares", "Which step costs how much", share_blocks, ("/shares",)),
    Section("beside", "Beside the chain", beside_blocks, ("/beside",)),
    Section("damping", "LDS against damping", damping_blocks),
    Section("rules", "Damping without retraining", rule_blocks, ("/regret",)),
    Section("cost", "What each rung costs", cost_blocks, ("/cost",)),
    Section("where", "Where the loss lives", where_blocks),
    Section("spectra", "Spectra and eigenvalue mismatch", spectra_blocks),
    Section(
        "prediction",
        "Does the error of the matrix predict the loss?",
        prediction_blocks,
        ("/prediction", "/spectral_error"),
    ),
    Section("trends", "Trends", trend_blocks),
    Section(
        "ladder",
        "From the controlled protocol to the paper's",
        ladder_blocks,
        ("/protocol_ladder",),
    ),
    Section("resolution", "How firmly it is resolved", resolution_blocks, ("/shares/resolution",)),
    Section("claims", "The claims", own_claim_blocks, ("/claims",)),
    Section("cells", "The cells", cell_blocks, ("/cells",)),
    Section("limits", "What this does not show", limits_blocks),
    Section("methods", "Methods and provenance", provenance_blocks),
)
"""In the reader's order; the claims come first on a page of many cells, late on that of one."""


def filled(result: Result) -> list[Filled]:
    """Every section that has a place on the page of ``result``, in the reader's order."""
    return [found for section in SECTIONS if (found := section.fill(result)) is not None]
