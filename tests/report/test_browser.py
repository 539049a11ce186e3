"""The page in a real Chromium: quiet, offline, narrow enough for a phone, sortable, accessible."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
AXE = os.environ.get("AXE_CORE")
"""Path of axe.min.js, from the npm package axe-core."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def page(pages: dict[str, Path]) -> Path:
    return pages["whole"]


@pytest.fixture(scope="module")
def awkward(pages: dict[str, Path]) -> Path:
    return pages["awkward"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["page", "awkward"])
def test_quiet_offline_and_no_wider_than_the_screen(
    which: str, width: int, dark: bool, browser: Browser, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(which), width=width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    assert browser.requests() == []


def test_dark_page_redraws_the_figures(browser: Browser, page: Path) -> None:
    ink = "getComputedStyle(document.querySelector('.plot text')).fill"
    browser.open(page)
    light = browser.evaluate(ink)
    browser.open(page, dark=True)
    assert browser.evaluate(ink) != light


def test_sorting_by_number_and_back(browser: Browser, page: Path) -> None:
    browser.open(page)
    caption = "Every rung at its best λ"
    tables = "[...document.querySelectorAll('table')]"
    table = f"{tables}.find(t => t.caption.textContent.includes('{caption}'))"
    cells = f"[...{table}.tBodies[0].rows].map(r => Number(r.cells[1].dataset.key))"
    press = f"{table}.tHead.rows[0].cells[1].querySelector('button').click()"
    before = browser.evaluate(cells)
    browser.evaluate(press)
    assert browser.evaluate(cells) == sorted(before)
    assert browser.evaluate(f"{table}.tHead.rows[0].cells[1].ariaSort") == "ascending"
    browser.evaluate(press)
    assert browser.evaluate(cells) == sorted(before, reverse=True)


def test_contents_lead_to_their_sections(browser: Browser, page: Path) -> None:
    browser.open(page)
    lost = "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash))"
    assert browser.evaluate(f"{lost}.length") == 0


def test_folds_open_for_an_anchor_for_print_and_at_one_press(browser: Browser, page: Path) -> None:
    browser.open(page)
    shut = "document.querySelectorAll('details:not([open])').length"
    inside = "document.querySelector('details.part figure, details.part details')"
    before = browser.evaluate(shut)
    assert before > 5
    browser.evaluate(f"location.hash = {inside}.id; new Promise(r => setTimeout(r, 100))")
    assert browser.evaluate(f"{inside}.closest('details').open")
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate(shut) == 0
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(shut) == before - 1
    press = "[...document.querySelectorAll('nav button')].find(b => b.textContent == 'Open all')"
    browser.evaluate(f"{press}.click()")
    assert browser.evaluate(shut) == 0


def test_user_text_runs_nothing(browser: Browser, awkward: Path) -> None:
    browser.open(awkward)
    assert browser.evaluate("document.scripts.length") == 1
    assert browser.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert "onerror=" in browser.evaluate("document.querySelector('h1').textContent")


@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe.min.js")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("opened", [False, True], ids=["folded", "opened"])
def test_axe_finds_nothing_serious(
    opened: bool, width: int, dark: bool, browser: Browser, page: Path
) -> None:
    assert AXE is not None
    browser.open(page, width=width, dark=dark)
    browser.evaluate(f"document.querySelectorAll('details').forEach(d => d.open = {int(opened)})")
    browser.evaluate(Path(AXE).read_text("utf-8") + ";0")
    found = browser.evaluate(
        "axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))"
    )
    assert [v for v in found if v[0] in ("serious", "critical")] == []
