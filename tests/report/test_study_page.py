"""The page of a study: planted answers are on it, what is missing is said, the same bytes twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.errors import ResultFileError, StoreError
from decomposition.names import CHAIN
from decomposition.report import claims_markdown, write_report
from decomposition.report.claims import claims
from decomposition.report.drawing import draw, png
from decomposition.report.figures import (
    plot_at_damping,
    plot_claims,
    plot_error_and_level,
    plot_factor,
    plot_frobenius,
    plot_ladder,
    plot_levels,
    plot_shares,
    plot_trends,
)
from decomposition.report.layout import architecture, layout
from decomposition.report.result import Result
from tests.report.synthetic_study import CLAIMS, LADDERS, LEVELS, PlantedStudy, synthetic_study
from tests.report.test_page import read

SECTIONS = "answer claims levels shares prediction trends cells limits methods"
SMALL = PlantedStudy(
    hidden=("16", "16-16-16-16"), epochs=(10, 100), protocols=("equal", "tuned"), shapley=False
)
AWKWARD = PlantedStudy(
    hidden=("16",),
    epochs=(10, 20),
    protocols=("equal",),
    rungs=("hessian", "kfac", "</svg><script>alert(2)</script>", "ggn", "block_ggn", "ekfac"),
    title='<img src=x onerror="alert(1)">',
    label="<b>_$b_{c}$" + "y" * 200,
    undefined_from=0,
)
LONG_FACTOR = PlantedStudy(
    hidden=("16",), epochs=(1, 10, 100), seeds=(0, 1), factor="epoch", protocols=("equal",)
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(synthetic_study(SMALL), tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(synthetic_study(AWKWARD), tmp_path_factory.mktemp("awkward"))


@pytest.fixture(params=["small", "awkward"])
def page(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def words(path: Path) -> str:
    return " ".join(" ".join(read(path.read_text("utf-8")).text).split())


def test_sections_in_the_readers_order(page: Path) -> None:
    assert re.findall(r'<section id="([a-z]+)"', page.read_text("utf-8")) == SECTIONS.split()


def test_page_loads_nothing_and_repeats_no_id(page: Path) -> None:
    reader = read(page.read_text("utf-8"))
    assert [u for u in reader.links if not u.startswith(("#", "data:"))] == []
    assert len(reader.ids) == len(set(reader.ids))
    assert {u[1:] for u in reader.links if u.startswith("#")} <= set(reader.ids)


def test_a_users_text_adds_no_element(awkward: Path) -> None:
    page = awkward.read_text("utf-8")
    assert read(page).tags.count("script") == 1
    assert "<img src=x" not in page
    assert "<b>_$b" not in page


def test_claims_table_leads_with_verdict_effect_and_count(small: Path) -> None:
    page = small.read_text("utf-8")
    table = page[page.index('<table class="claims"') :]
    assert page.index('<table class="claims"') < page.index("<figure")
    rows = re.findall(r'<td role="cell" class="([a-z-]+)"[^>]*>(.*?)</td>', table, re.DOTALL)
    found = [(css, " ".join(re.sub("<[^>]*>", " ", cell).split())) for css, cell in rows]
    assert found[0] == ("supported", "✓ supported (3/4 cells ) 0.170 [0.150, 0.190]")
    assert found[2][1] == "○ not resolved (4/4 cells ) 0.520 [0.500, 0.540]"
    assert found[3] == ("untested", "– not tested")
    assert found[4] == ("contradicted", "✗ not reproduced (3/4 cells ) 0.120 [0.100, 0.140]")
    assert found[5] == ("untested", "– not tested")


def test_cells_behind_each_claim(small: Path) -> None:
    page = small.read_text("utf-8")
    for i in range(1, len(CLAIMS) + 1):
        part = page[page.index(f'<details class="part" id="claim-{i}"') :]
        part = part[: part.index("</details>")]
        assert part.count('<tr role="row">') == 1 + len(SMALL.cells)
    assert "(p &lt; 0.001)" in part


@pytest.mark.parametrize(
    ("which", "text"),
    [
        ("small", "1 is supported under every protocol"),
        ("small", "Undefined, as the total is within noise, in 2 under tuned λ"),
        ("small", "With epoch the level of Hessian, GGN, block GGN, EK-FAC and K-FAC falls"),
        ("small", "the way from the controlled protocol to the paper's"),
        ("small", "python analyses/paper_grid.py --out out/"),
        ("small", "cell 3: factor A of layer 0 has a repeated eigenvalue"),
        ("awkward", "No cell has defined shares of the LDS"),
        ("awkward", "No share of the LDS is defined"),
    ],
)
def test_page_says_it_in_words(which: str, text: str, request: pytest.FixtureRequest) -> None:
    assert text in words(request.getfixturevalue(which))


def test_every_figure_tells_its_finding(small: Path) -> None:
    found = re.findall(r'role="img" aria-label="([^"]+)"', small.read_text("utf-8"))
    assert len(found) >= 12
    assert min(map(len, found)) > 30
    assert "nan" not in " ".join(found).lower().replace("dominan", "")


def test_same_study_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    planted = PlantedStudy(hidden=("16",), epochs=(10,), protocols=("equal",), trends=False)
    tree = synthetic_study(planted)
    level = tree["shares"].to_dataset()[["level"]]
    tree = xr.DataTree.from_dict({"/": tree.to_dataset(), "/shares": level})
    tree.to_netcdf(tmp_path / "study.nc", engine="h5netcdf")
    here = write_report(tree, tmp_path / "here")
    script = (
        "import sys\nfrom decomposition.report import write_report\nwrite_report(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(tmp_path / "there")]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "1", "PATH": "/usr/bin:/bin"})
    assert (tmp_path / "there" / "report.html").read_bytes() == here.read_bytes()


def test_root_alone_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    tree = xr.DataTree(xr.Dataset(attrs=synthetic_study(SMALL).attrs))
    found = words(write_report(tree, tmp_path))
    for text in ("was not measured", "shares of the steps", "spectra; spectral errors"):
        assert text in found


def test_not_a_study(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match="no result at"):
        write_report(tmp_path, tmp_path)
    (tmp_path / "study.nc").write_bytes(b"not a file")
    with pytest.raises(ResultFileError, match="is not a netCDF-4 file"):
        write_report(tmp_path, tmp_path)
    (tmp_path / "file").write_text("")
    tree = xr.DataTree(xr.Dataset(attrs={"study": "empty"}))
    with pytest.raises(StoreError, match="cannot write"):
        write_report(tree, tmp_path / "file")


def test_markdown_table_of_the_claims() -> None:
    text = claims_markdown(synthetic_study(SMALL))
    lines = text.splitlines()
    assert lines[0] == "| claim | equal λ | tuned λ |"
    assert "✓ **supported**<br>0.170 \\[0.150, 0.190\\]<br>supported in 3 of 4 cells" in lines[2]
    assert lines[4].endswith("| – |")
    assert {line.count("|") for line in lines[:5]} == {4}
    assert "`python analyses/paper_grid.py --out out/`" in lines[-1]
    assert "2026-01-01" in lines[-1]


def test_markdown_has_a_table_per_chain() -> None:
    planted = PlantedStudy(hidden=("16",), protocols=("equal",), chains=("", "paper, "))
    text = claims_markdown(synthetic_study(planted))
    assert re.findall(r"\*\*(\w+ chain)\*\*", text) == ["Exact chain", "Paper chain"]
    assert text.count("| claim | equal λ |") == 2


def test_markdown_keeps_a_users_marks_as_they_are() -> None:
    tree = synthetic_study(SMALL)
    texts = json.dumps(CLAIMS | {"better": "a|<b> *c*"})
    tree["claims"]["claim"].attrs["texts"] = texts
    assert r"a\|\<b\> \*c\*" in claims_markdown(tree)


def test_counts_are_the_verdicts_counted() -> None:
    tree = synthetic_study(SMALL)
    tree["claims"].dataset = tree["claims"].to_dataset().drop_vars("counts")
    first = claims(Result(tree))[0].findings["equal"]
    assert first.counts == {"supported": 3, "not resolved": 1, "contradicted": 0}


def test_layout_puts_checkpoints_across_and_the_rest_below() -> None:
    found = layout(Result(synthetic_study(SMALL)))
    assert found.columns == ("epoch 10", "epoch 100")
    assert found.rows == ("16", "16×4")
    assert found.cells == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3}


def test_layout_puts_the_studied_factor_below() -> None:
    found = layout(Result(synthetic_study(LONG_FACTOR)))
    assert found.columns == ("",)
    assert found.rows[:2] == ("epoch 1, seed 0", "epoch 1, seed 1")
    assert len(found.cells) == 6


def test_layout_tells_equal_cells_apart() -> None:
    found = layout(Result(synthetic_study(PlantedStudy(hidden=("16", "16"), epochs=(10,)))))
    assert found.rows == ("(cell 0)", "(cell 1)")


@pytest.mark.parametrize("cells", [1, 12, 13, 40])
def test_chunks_hold_every_row_once(cells: int) -> None:
    rows = tuple(map(str, range(cells)))
    chunks = type(layout(Result(synthetic_study(SMALL))))(rows, ("",), {}).chunks(12)
    assert [row for chunk in chunks for row in chunk] == list(range(cells))
    assert max(map(len, chunks)) <= 12


@pytest.mark.parametrize(
    ("hidden", "text"), [("16-16-16-16", "16×4"), ("64-32", "64-32"), ("16", "16"), ("", "")]
)
def test_architecture(hidden: str, text: str) -> None:
    assert architecture(hidden) == text


def test_levels_are_drawn_where_they_were_planted() -> None:
    tree = synthetic_study(SMALL)
    ax = plot_levels(tree, "equal", column=0, rows=[0])
    dots = {
        float(line.get_xdata()[0])
        for line in ax.get_lines()
        if line.get_marker() not in ("None", "", None)
    }
    assert dots >= {round(value, 12) for value in LEVELS.values()}


def test_interval_beyond_the_axis_ends_in_an_arrow() -> None:
    tree = synthetic_study(SMALL)
    place = {"cell": 0, "metric": "lds", "protocol": "equal", "step": "linearisation"}
    tree["shares"]["share"].loc[place] = [-50.0, 0.2, 70.0]
    ax = plot_shares(tree, protocol="equal", column=0)
    assert {"<", ">"} <= {line.get_marker() for line in ax.get_lines()}
    assert ax.get_xlim()[1] < 300


def test_undefined_shares_say_so() -> None:
    ax = plot_shares(synthetic_study(SMALL), protocol="tuned", column=1)
    assert "undefined: total within noise" in [text.get_text() for text in ax.texts]


def test_no_two_rungs_look_alike() -> None:
    rungs = (*CHAIN, "identity", "random", *(f"own_{i}" for i in range(9)))
    styles = Result(synthetic_study(PlantedStudy(rungs=rungs))).styles
    assert len({(style.color, style.marker) for style in styles.values()}) == len(rungs)


def test_ladder_ends_where_its_drops_lead() -> None:
    ax = plot_ladder(synthetic_study(PlantedStudy(ladder=True)), "equal", cell=0)
    ends = [
        float(line.get_xdata()[0])
        for line in ax.get_lines()
        if line.get_marker() in "osv^D" and len(line.get_xdata()) == 1
    ]
    wanted = [
        LEVELS[rung] - float(drop)
        for rung, ladder in LADDERS.items()
        for drop in np.cumsum([0.0, *ladder.values()])
    ]
    np.testing.assert_allclose(ends, wanted, atol=1e-12)


def test_factor_line_joins_the_means_over_seeds() -> None:
    tree = synthetic_study(LONG_FACTOR)
    ax = plot_factor(tree, "equal")
    level = tree["shares"]["level"].sel(protocol="equal", rung="hessian", ci_bound="estimate")
    means = level.assign_coords(epoch=tree["cells"]["epoch"]).groupby("epoch").mean().values
    lines = [np.asarray(line.get_ydata()) for line in ax.get_lines() if len(line.get_ydata()) == 3]
    assert any(np.allclose(line, means, atol=1e-12) for line in lines)


def test_damping_as_the_factor_is_drawn_from_the_curve() -> None:
    planted = PlantedStudy(hidden=("16",), epochs=(10,), factor="multiplier")
    ax = plot_factor(synthetic_study(planted), "equal")
    assert ax.get_xlabel() == "λ / (tr G / min(P, N·C))"
    assert len(ax.get_lines()) > 5


@pytest.mark.parametrize(
    "plot",
    [
        plot_at_damping,
        plot_claims,
        plot_levels,
        plot_shares,
        plot_error_and_level,
        plot_factor,
        plot_frobenius,
        plot_ladder,
        lambda tree: plot_trends(tree, "level", "epoch"),
    ],
)
def test_figures_of_an_empty_study_say_what_is_missing(plot) -> None:
    ax = plot(xr.DataTree(xr.Dataset(attrs={"study": "empty"})))
    assert len(ax.texts) == 1
    assert png(ax).startswith(b"\x89PNG")


def test_same_figure_gives_the_same_bytes() -> None:
    tree = synthetic_study(SMALL)
    first, second = (draw(plot_shares(tree), "a") for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_two_hundred_cells(tmp_path: Path) -> None:
    planted = PlantedStudy(alphas=(0.3, 0.5, 0.7, 0.9), seeds=(0, 1, 2, 3, 4, 5), ladder=True)
    path = write_report(synthetic_study(planted), tmp_path)
    assert path.stat().st_size < 20_000_000
    assert words(path).count("216 cells") >= 3


def test_claims_of_one_cell_stand_late_and_count_nothing(tmp_path: Path) -> None:
    tree = synthetic_study(PlantedStudy(hidden=("16",), epochs=(10,), protocols=("equal",)))
    page = write_report(tree, tmp_path).read_text("utf-8")
    order = re.findall(r'<section id="([a-z]+)"', page)
    assert order.index("claims") > order.index("prediction")
    section = page[page.index('<section id="claims"') :]
    section = section[: section.index("</section>")]
    assert '✓ <span class="word">supported' in section
    assert not re.search("of 1 cell|1/1|<figure", section)
    assert "of 1 cell" not in claims_markdown(tree)
