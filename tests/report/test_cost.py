"""What each rung costs, on the page: the frontier in words and as a line, counts in a table."""

from __future__ import annotations

import pytest
import xarray as xr
from matplotlib.text import Text as Text_

from decomposition.report.content import Figure, Table, Text
from decomposition.report.figures import plot_cost
from decomposition.report.result import Result
from decomposition.report.sections.cost import cost_blocks
from decomposition.shares.recommendation import recommendation_group
from tests.shares.test_recommendation import COSTS, TRUE, cell


@pytest.fixture(scope="module")
def planted() -> xr.DataTree:
    """The frontier is identity, K-FAC, block GGN, GGN."""
    tree = cell(TRUE | {"ekfac": 0.49, "ggn": 0.62})
    found = recommendation_group([tree], 0.95)
    assert found is not None
    tree["/recommendation"] = xr.DataTree(found.squeeze("cell", drop=True))
    cost = tree["cost"].to_dataset()
    more = dict.fromkeys(("examples", "backward_passes", "products"), cost["operations"])
    memory = cost["operations"].sum("phase")
    tree["/cost"] = xr.DataTree(cost.assign(more).assign(memory=memory))
    return tree


def test_the_frontier_is_drawn_through_what_no_cheaper_rung_equals(planted: xr.DataTree) -> None:
    ax = plot_cost(planted)
    assert ax.get_xscale() == "log"
    line = ax.lines[0]
    assert line.get_linestyle() == "--"
    edge = ["identity", "kfac", "block_ggn", "ggn"]
    assert list(line.get_xdata()) == pytest.approx([COSTS[rung] for rung in edge])
    assert {text.get_text() for text in ax.texts} == {"identity", "K-FAC", "block GGN", "GGN"}
    figure = ax.get_figure()
    assert figure is not None
    head = "Recommended: GGN; K-FAC is 450 times cheaper"
    assert head in {text.get_text() for text in figure.findobj(Text_)}


def test_a_rung_has_its_colour_of_every_other_figure(planted: xr.DataTree) -> None:
    ax, styles = plot_cost(planted), Result(planted).styles
    marks = {
        round(float(line.get_xdata()[0])): line for line in ax.lines if len(line.get_xdata()) == 1
    }
    for rung, style in styles.items():
        assert marks[COSTS[rung]].get_color() == style.color


def test_the_section_tells_the_frontier_and_what_every_rung_takes(planted: xr.DataTree) -> None:
    finding, figure, how, table = cost_blocks(Result(planted))
    assert isinstance(finding, Text)
    assert finding.text.startswith("Worth their work, by their LDS, are identity (0.30), K-FAC")
    assert isinstance(figure, Figure)
    assert isinstance(how, Text)
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [
        "Hessian",
        "GGN",
        "block GGN",
        "EK-FAC",
        "K-FAC",
        "identity",
    ]


def test_an_older_result_has_no_such_section() -> None:
    assert cost_blocks(Result(xr.DataTree())) == []
