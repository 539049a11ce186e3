"""A page is read in two minutes: its height, its words, its tables, what folds and what prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from decomposition.report import write_report
from tests.report.browser import CHROMIUM, Browser
from tests.report.synthetic_study import PlantedStudy, synthetic_study
from tests.results.synthetic import Planted, synthetic

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"
CASES = ["whole", "no bank", "undefined", "regression", "study"]
STUDY = Path(__file__).parents[2] / "docs" / "study.nc"


@pytest.fixture(scope="module")
def every(pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("budget")
    study = PlantedStudy(hidden=("16", "32", "64"), epochs=(10, 100), ladder=True)
    return pages | {
        "regression": write_report(synthetic(Planted(regression=True)), folder / "regression"),
        "study": write_report(synthetic_study(study), folder / "study"),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("width", "height"), [(1200, 6_000), (390, 10_000)])
def test_folded_it_is_short(
    case: str, width: int, height: int, every: dict[str, Path], browser: Browser
) -> None:
    browser.open(every[case], width=width)
    assert browser.height() <= height
    assert browser.words() <= 1_500
    assert browser.cut_off() == []


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [1200, 390])
def test_opened_no_table_is_cut_off(
    case: str, width: int, every: dict[str, Path], browser: Browser
) -> None:
    browser.open(every[case], width=width)
    browser.evaluate(OPEN_ALL)
    assert browser.cut_off() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_on_a_phone_every_value_has_its_label(every: dict[str, Path], browser: Browser) -> None:
    browser.open(every["whole"], width=390)
    browser.evaluate(OPEN_ALL)
    content = "getComputedStyle(cell, '::before').content"
    unlabelled = f"[...document.querySelectorAll('tbody td')].filter(cell => {content} == 'none')"
    assert browser.evaluate(f"{unlabelled}.length") == 0


def test_what_folds_is_printed(every: dict[str, Path], browser: Browser) -> None:
    browser.open(every["whole"], width=1200)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        gone = "[...document.querySelectorAll('details .table, details figure')]"
        assert browser.evaluate(f"{gone}.length") > 10
        assert browser.evaluate(f"{gone}.filter(e => !e.checkVisibility()).length") == 0
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_the_reader_chooses_damping_and_query(every: dict[str, Path], browser: Browser) -> None:
    browser.open(every["whole"])
    figure = "document.querySelector('#answer .plot')"
    before = browser.evaluate(f"{figure}.innerHTML")
    choose = "((n, v) => { const s = document.querySelectorAll('.explore select')[n]; s.value = v; "
    choose += "s.dispatchEvent(new Event('input', {bubbles: true})); })"
    said = "document.querySelector('.explore output').textContent"
    browser.evaluate(f"{choose}(0, 1)")
    assert browser.evaluate(f"{figure}.getAttribute('aria-label')").startswith("Hessian 0.6")
    browser.evaluate(f"{choose}(2, 3)")
    assert "one query has no interval" in browser.evaluate(said)
    browser.evaluate(f"{choose}(2, 0)")
    browser.evaluate(f"{choose}(0, 2)")
    assert browser.evaluate(said).startswith("λ = ")
    browser.evaluate(f"{choose}(0, 0)")
    assert browser.evaluate(f"{figure}.innerHTML") == before
    assert browser.complaints() == []


@pytest.mark.slow
def test_the_study_of_18_cells(tmp_path: Path, browser: Browser) -> None:
    page = write_report(STUDY, tmp_path)
    assert page.stat().st_size < 4_000_000
    for width, height in ((1200, 6_000), (390, 10_000)):
        browser.open(page, width=width)
        assert browser.height() <= height
        assert browser.words() <= 1_500
        browser.evaluate(OPEN_ALL)
        assert browser.cut_off() == []
