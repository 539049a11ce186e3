"""What users call things reaches the page as text that is seen, and no spreadsheet runs it."""

from __future__ import annotations

import base64
import csv
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from decomposition.report import show, write_markdown, write_report
from decomposition.report.content import Table
from decomposition.report.interval import Interval
from decomposition.report.wording import visible
from tests.results.synthetic import Planted, synthetic

UNSEEN = "a\x1b[31m\x00\x07\x9b\u202e\ud800\uffff"
NAMES = Planted(problem=UNSEEN, extra=("=1+1" + UNSEEN,), blocks=("@x" + UNSEEN, "\r=2", "\t=3"))
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff\uffff]")


def decoded(page: str, kind: str) -> list[str]:
    found = re.findall(rf"data:{kind}[^,]*;base64,([^\"]*)", page)
    return [base64.b64decode(one).decode() for one in found]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    return write_report(synthetic(NAMES), folder).read_text("utf-8")


def test_a_page_and_its_downloads_hold_no_control_characters(page: str) -> None:
    assert r"\u202e" in page
    tables, code = (decoded(page, kind) for kind in ("text/csv", "application/json"))
    assert tables
    assert code
    for text in (page, *tables, *code):
        assert not FORBIDDEN.search(text)
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ET.fromstring(svg)


def test_no_cell_of_a_download_is_a_formula(page: str) -> None:
    cells = [
        cell
        for table in decoded(page, "text/csv")
        for row in csv.reader(io.StringIO(table))
        for cell in row
    ]
    assert any(cell.startswith("'=1+1") for cell in cells)
    assert any(cell.startswith("'@x") for cell in cells)
    for cell in cells:
        if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
            float(cell)


def test_markdown_comparison_and_notebook_hold_none(tmp_path: Path) -> None:
    tree = synthetic(NAMES)
    summary = show(tree)
    texts = [
        write_markdown(tree, tmp_path).read_text("utf-8"),
        write_report([tree, tree], tmp_path).read_text("utf-8"),
        *(path.read_text("utf-8") for path in (tmp_path / "report_figures").iterdir()),
        summary._repr_html_(),
        str(summary),
    ]
    assert len(texts) > 5
    assert not any(FORBIDDEN.search(text) for text in texts)


def test_numbers_stay_numbers_and_other_scripts_text() -> None:
    rows = ((-1.5, "-1.5", "-x", "=A1"), (Interval(-3.0, -2.0, -1.0), "שלום", "a\nb", "汉字 ‌"))
    read = list(csv.reader(io.StringIO(Table("t", "c", ("-a", "b", "c", "d"), rows).csv())))
    assert read == [
        ["'-a lower", "'-a estimate", "'-a upper", "b", "c", "d"],
        ["", "-1.5", "", "-1.5", "'-x", "'=A1"],
        ["-3.0", "-2.0", "-1.0", "שלום", "a\nb", "汉字 ‌"],
    ]


def test_names_that_differ_stay_different() -> None:
    assert visible("a\x00") != visible("a\x01")
    assert visible("tab\tand\nline é 汉 \u2068שלום\u2069") == "tab\tand\nline é 汉 \u2068שלום\u2069"
