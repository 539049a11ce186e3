"""A result in a notebook, and hints that a pointer brings up."""

from __future__ import annotations

import pytest

from decomposition.report import show
from decomposition.report.content import Table
from decomposition.report.drawing import draw
from decomposition.report.figures import plot_orders
from decomposition.report.figures.canvas import axes_or_new, hint
from decomposition.report.interval import Interval
from decomposition.report.orders import readings, survival
from decomposition.report.result import Result
from tests.results.synthetic import Planted, synthetic


def test_a_result_shows_its_verdict_and_its_tables() -> None:
    summary = show(synthetic(Planted(problem="<b>mine</b>")))
    html = summary._repr_html_()
    assert "costs 0.170 [0.155, 0.185] of attribution quality (LDS) under equal λ" in html
    assert "LDS of each rung" in html
    assert "&lt;b&gt;mine" in html
    assert "<b>mine" not in html
    assert "costs 0.170" in str(summary)


def test_every_table_is_there_by_name() -> None:
    tables = show(synthetic()).tables
    assert {"levels", "shares", "drops", "policies", "prediction", "where-layers"} <= set(tables)
    assert all(isinstance(table, Table) for table in tables.values())


def test_a_result_without_attribution_shows_itself() -> None:
    html = show(synthetic(Planted(bank=False, examples=False)))._repr_html_()
    assert "Attribution quality was not measured" in html


def test_hints_become_titles_and_stay_text() -> None:
    ax = axes_or_new(None)
    hint(ax.plot([0, 1])[0], 'a < b & "c"')
    drawing = draw(ax, "x")
    assert '<title>a &lt; b &amp; "c"</title>' in drawing.inline
    assert "<title>a &lt; b" in drawing.svg.decode()


def test_rounded_cells_tell_more_digits() -> None:
    table = Table("t", "c", ("a",), ())
    assert table.hint(Interval(0.1, 1 / 3, 0.5)) == "0.333333, from 0.1 to 0.5"
    assert table.hint("text") == ""


@pytest.mark.parametrize("undefined", [False, True])
def test_every_protocol_and_order_is_read(undefined: bool) -> None:
    study = Result(synthetic(Planted(undefined=undefined)))
    found = readings(study)
    assert len(found) == 2 * (2 + 1)
    assert all(r.largest == "cross_layer" for r in found)
    assert all(r.defined is not undefined for r in found)
    assert "along every order of the steps cross-layer has the largest" in survival(study)


def test_undefined_shares_are_drawn_as_drops() -> None:
    ax = plot_orders(synthetic(Planted(undefined=True)))
    assert any("+0.001" in text.get_text() for text in ax.texts)
