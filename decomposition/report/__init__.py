"""The decomposition report: figures, tables and words, from a result tree alone."""

from decomposition.report.compare import write_comparison
from decomposition.report.markdown import write_markdown
from decomposition.report.page import write_report

__all__ = ["write_comparison", "write_markdown", "write_report"]
