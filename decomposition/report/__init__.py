"""The decomposition report: figures, tables and words, from a result tree alone."""

from decomposition.report.compare import write_comparison
from decomposition.report.markdown import write_comparison_markdown, write_markdown
from decomposition.report.page import write_report
from decomposition.report.show import Summary, show

__all__ = [
    "Summary",
    "show",
    "write_comparison",
    "write_comparison_markdown",
    "write_markdown",
    "write_report",
]
