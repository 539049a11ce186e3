"""The decomposition report: figures, tables and words, from results alone."""

from decomposition.report.markdown import claims_markdown, write_markdown
from decomposition.report.page import write_report
from decomposition.report.show import Summary, show

__all__ = ["Summary", "claims_markdown", "show", "write_markdown", "write_report"]
