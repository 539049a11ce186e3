"""The report of one result or of several: its sections in the reader's order, as one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from decomposition.report.content import Filled
from decomposition.report.explore import explore
from decomposition.report.html import page
from decomposition.report.result import Result
from decomposition.report.sections import filled
from decomposition.report.sections.answer import studied
from decomposition.report.wording import isolated
from decomposition.results.read import open_result
from decomposition.results.stack import stack
from decomposition.results.upgrade import upgraded
from decomposition.results.write import COMPARISON_NAME, REPORT_NAME, output_folder, write_whole

Source = xr.DataTree | str | os.PathLike[str]
"""A result, or the file or folder that holds one."""


def write_report(results: Source | Sequence[Source], folder: str | os.PathLike[str]) -> Path:
    """Write ``folder/report.html`` from results alone and return its path.

    The page is one file without network access, and byte for byte the same for the same results.
    Several results are the cells of one page, ``folder/comparison.html``.

    Args:
        results: a result of one cell or of many, or the file or folder that holds one; or a
            sequence of those.
        folder: where the report goes.

    Raises:
        ResultFileError: there is no readable result at a path.
        StoreError: the folder cannot be written.
    """
    tree = as_tree(results)
    target = output_folder(folder) / (COMPARISON_NAME if several(results) else REPORT_NAME)
    write_whole(target, report_html(tree).encode("utf-8"))
    return target


def report_html(tree: xr.DataTree) -> str:
    """The page as a string."""
    result = Result(tree)
    parts = (studied(result), f"made {str(result.attr('created_at'))[:10]}")
    byline = " · ".join(part for part in parts if part)
    version = str(result.attr("library_version"))
    return page(report_title(result), byline, version, report_sections(result), explore(result))


def report_title(result: Result) -> str:
    """The heading of a report."""
    own = result.attr("title") or (f"Study {result.attr('study')}" if result.attr("study") else "")
    if own:
        return isolated(own, 200)
    inversion = "" if result.damped else f", inversion {result.inversions[0]}"
    return f"Where K-FAC's error comes from: {isolated(result.attr('problem'))}{inversion}"


def report_sections(result: Result) -> list[Filled]:
    """Every section of a result's report, in the reader's order."""
    return filled(result)


def several(results: Source | Sequence[Source]) -> bool:
    """Whether these are several results to set side by side."""
    return not isinstance(results, xr.DataTree | str | os.PathLike) and len(results) > 1


def as_tree(results: Source | Sequence[Source]) -> xr.DataTree:
    """A result as it is or read from its path; several as the cells of one."""
    if isinstance(results, xr.DataTree):
        return upgraded(results)
    if isinstance(results, str | os.PathLike):
        return open_result(results)
    trees = [as_tree(one) for one in results]
    return trees[0] if len(trees) == 1 else stack(trees)
