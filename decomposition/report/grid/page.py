"""The report of a study: its sections in the reader's order, written as one file."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from decomposition.report.grid.cells import Grid
from decomposition.report.grid.html import study_page
from decomposition.report.grid.open import open_study
from decomposition.report.grid.sections import SECTIONS
from decomposition.report.wording import isolated, plural
from decomposition.results.write import REPORT_NAME, output_folder, write_whole


def write_study_report(
    tree_or_folder: xr.DataTree | str | os.PathLike[str], folder: str | os.PathLike[str]
) -> Path:
    """Write ``folder/report.html`` from a study alone and return its path.

    The page is one file without network access, and byte for byte the same for the same study.

    Args:
        tree_or_folder: a study, or the file or folder that holds one.
        folder: where the report goes.

    Raises:
        ResultFileError: there is no readable study at the path.
        StoreError: the folder cannot be written.
    """
    tree = open_study(tree_or_folder)
    target = output_folder(folder) / REPORT_NAME
    write_whole(target, study_html(tree).encode("utf-8"))
    return target


def study_html(tree: xr.DataTree) -> str:
    """The page as a string."""
    grid = Grid(tree)
    title = isolated(grid.attr("title") or f"Study {grid.attr('study')}", 200)
    made = grid.attr("created_at")
    byline = plural(len(grid.cells), "cell") + (f" · made {made}" if made else "")
    sections = [build(grid) for build in SECTIONS]
    return study_page(title, byline, str(grid.attr("library_version")), sections)
