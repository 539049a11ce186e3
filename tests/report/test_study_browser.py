"""A study's page in a real Chromium: quiet, offline, fit for a phone, open to the keyboard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from decomposition.report import write_report
from tests.report.browser import CHROMIUM, Browser
from tests.report.synthetic_study import PlantedStudy, synthetic_study

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
AXE = os.environ.get("AXE_CORE")
"""Path of axe.min.js, from the npm package axe-core."""
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    planted = PlantedStudy(
        hidden=("16",),
        epochs=(10, 100),
        protocols=("equal",),
        chains=("", "paper, "),
        ladder=True,
    )
    return write_report(synthetic_study(planted), tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_quiet_offline_and_no_wider_than_the_screen(
    width: int, dark: bool, browser: Browser, page: Path
) -> None:
    browser.open(page, width=width, dark=dark)
    browser.evaluate(OPEN_ALL)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    assert browser.requests() == []


def test_claims_fit_a_phone_without_scrolling(browser: Browser, page: Path) -> None:
    browser.open(page, width=360)
    table = "document.querySelector('table.claims')"
    assert browser.evaluate(f"{table}.scrollWidth <= {table}.parentElement.clientWidth")
    label = f"getComputedStyle({table}.querySelector('td'), '::before').content"
    assert browser.evaluate(label) == '"equal λ"'


def test_every_cell_link_leads_to_a_part_that_a_key_opens(browser: Browser, page: Path) -> None:
    browser.open(page)
    links = "[...document.querySelectorAll('.claims th a')]"
    assert browser.evaluate(f"{links}.length") == 6
    assert browser.evaluate(
        f"{links}.every(a => document.querySelector(a.hash).tagName == 'DETAILS')"
    )
    browser.evaluate("document.querySelector('#claims-more').open = true")
    browser.evaluate("document.querySelector('#claim-1 > summary').focus()")
    for kind in ("keyDown", "keyUp"):
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        browser.call("Input.dispatchKeyEvent", type=kind, **key)
    assert browser.evaluate("document.querySelector('#claim-1').open")


@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe.min.js")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_nothing_serious(width: int, dark: bool, browser: Browser, page: Path) -> None:
    assert AXE is not None
    browser.open(page, width=width, dark=dark)
    browser.evaluate(OPEN_ALL)
    browser.evaluate(Path(AXE).read_text("utf-8") + ";0")
    found = browser.evaluate(
        "axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))"
    )
    assert [v for v in found if v[0] in ("serious", "critical")] == []
