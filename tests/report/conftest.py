"""The pages that the report's tests look at, each written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from decomposition.report import write_report
from tests.results.synthetic import Planted, synthetic

AWKWARD = Planted(
    problem='<img src=x onerror="alert(1)">\u202e' + "y" * 300,
    extra=("</svg><script>alert(2)</script>", "שלום", "汉字", "_$b_{c}$" + "z" * 200),
    blocks=("0.<script>", "é\u202e" + "w" * 200),
)
CASES = {
    "whole": Planted(extra=("mine",)),
    "no bank": Planted(bank=False, examples=False),
    "one rung": Planted(rungs=("kfac",), bank=False, examples=False, blocks=()),
    "undefined": Planted(undefined=True, base_models=True, examples=False, blocks=()),
    "awkward": AWKWARD,
}


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {
        name: write_report(synthetic(planted), folder / name.replace(" ", "-"))
        for name, planted in CASES.items()
    }
