"""The report of one result: its sections in the reader's order, written as one file."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from decomposition.report.content import Section
from decomposition.report.html import page
from decomposition.report.sections import SECTIONS
from decomposition.report.study import Study
from decomposition.report.wording import isolated
from decomposition.results.read import open_result
from decomposition.results.write import REPORT_NAME, output_folder, write_whole


def write_report(
    tree_or_path: xr.DataTree | str | os.PathLike[str], folder: str | os.PathLike[str]
) -> Path:
    """Write ``folder/report.html`` from a result alone and return its path.

    The page is one file without network access, and byte for byte the same for the same result.

    Args:
        tree_or_path: a result, or the file or folder that holds one.
        folder: where the report goes.

    Raises:
        ResultFileError: there is no readable result at the path.
        StoreError: the folder cannot be written.
    """
    tree = as_tree(tree_or_path)
    target = output_folder(folder) / REPORT_NAME
    write_whole(target, report_html(tree).encode("utf-8"))
    return target


def report_html(tree: xr.DataTree) -> str:
    """The page as a string."""
    study = Study(tree)
    byline = f"Made {study.attr('created_at')} · result schema {study.attr('schema_version')}"
    return page(
        report_title(study), byline, str(study.attr("library_version")), report_sections(study)
    )


def report_title(study: Study) -> str:
    """The heading of a report."""
    return f"Where K-FAC's error comes from: {isolated(study.attr('problem'))}"


def report_sections(study: Study) -> list[Section]:
    """Every section of a study's report, in the reader's order."""
    return [section for build in SECTIONS if (section := build(study)) is not None]


def as_tree(tree_or_path: xr.DataTree | str | os.PathLike[str]) -> xr.DataTree:
    """A result as it is, or read from its path."""
    if isinstance(tree_or_path, xr.DataTree):
        return tree_or_path
    return open_result(tree_or_path)
