"""A page is made whatever the numbers of a result: zero spectra, unknown shares, one damping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.report import write_report
from decomposition.results import write_result
from tests.results.synthetic import Planted, synthetic

Change = Callable[[str, xr.Dataset], xr.Dataset]


def changed(change: Change) -> xr.DataTree:
    tree = synthetic(Planted(base_models=True))
    return xr.DataTree.from_dict(
        {node.path: change(node.path, node.to_dataset(inherit=False)) for node in tree.subtree}
    )


def filled(value: float, under: str) -> Change:
    def change(path: str, data: xr.Dataset) -> xr.Dataset:
        if not path.startswith(under):
            return data
        numbers = {k: v for k, v in data.data_vars.items() if v.dtype.kind == "f"}
        return data.assign({k: xr.full_like(v, value) for k, v in numbers.items()})

    return change


def first_of(dim: str) -> Change:
    return lambda _, data: data.isel({dim: slice(1)}) if dim in data.dims else data


CHANGES: dict[str, Change] = {
    "zero spectra": filled(0.0, "/spectrum"),
    "a zero block": filled(0.0, "/spectrum/2"),
    "a block of NaN": filled(np.nan, "/spectrum/2"),
    "zero errors": filled(0.0, "/spectral_error"),
    "unknown shares": filled(np.nan, "/shares"),
    "zero levels": filled(0.0, "/attribution"),
    "one damping": first_of("damping"),
    "one query": first_of("query"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_page_is_made(change: Change, tmp_path: Path) -> None:
    tree = changed(change)
    write_result(tree, tmp_path)
    write_report(tree, tmp_path)
    assert "</html>" in (tmp_path / "report.html").read_text("utf-8")
