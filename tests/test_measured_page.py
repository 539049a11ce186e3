"""The tables of docs/measured.md are those of what benchmarks have kept."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_tables_of_the_page_are_made_from_what_was_kept() -> None:
    spec = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = (DOCS / "measured.md").read_text("utf-8")
    assert text.count("<!-- / -->") > 5
    assert tables.page(text) == text
