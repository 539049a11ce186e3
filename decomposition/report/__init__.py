"""The decomposition report: figures, tables and words, from a result tree alone."""

from decomposition.report.page import write_report

__all__ = ["write_report"]
