"""The result tree: schema, provenance, writing and reading."""

from decomposition.results.provenance import provenance
from decomposition.results.read import open_result
from decomposition.results.write import write_result

__all__ = ["open_result", "provenance", "write_result"]
