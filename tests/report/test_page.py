"""The page: whole, honest about what is missing, the same bytes twice, and text stays text."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.errors import ResultFileError, StoreError
from decomposition.report import write_markdown, write_report
from decomposition.results import write_result
from tests.report.conftest import CASES
from tests.results.synthetic import Planted, synthetic


class _Reader(HTMLParser):
    """Collects the tags, the ids and the addresses of a page, and its text outside figures."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src", "xlink:href") and value:
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


@pytest.mark.parametrize("case", CASES)
def test_page_has_every_section_and_is_small(case: str, pages: dict[str, Path]) -> None:
    page = text_of(pages[case])
    found = re.findall(r'<section id="([a-z]+)"', page)
    gone = {"no bank": "shares damping resolution"}
    gone["one rung"] = gone["no bank"] + " where"
    every = "answer shares damping where spectra prediction resolution limits methods"
    assert found == [s for s in every.split() if s not in gone.get(case, "").split()]
    assert len(page.encode()) < 5_000_000


@pytest.mark.parametrize("case", CASES)
def test_page_loads_nothing_and_repeats_no_id(case: str, pages: dict[str, Path]) -> None:
    reader = read(text_of(pages[case]))
    assert [u for u in reader.links if not u.startswith(("#", "data:"))] == []
    assert len(reader.ids) == len(set(reader.ids))
    assert {u[1:] for u in reader.links if u.startswith("#")} <= set(reader.ids)


def test_user_text_adds_no_element(pages: dict[str, Path]) -> None:
    page = text_of(pages["awkward"])
    assert read(page).tags.count("script") == 1
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror" in page
    assert "_$b_{c}$" in page


def test_same_result_gives_the_same_bytes_in_another_process(
    pages: dict[str, Path], tmp_path: Path
) -> None:
    path = write_result(synthetic(CASES["one rung"]), tmp_path)
    script = (
        "import sys\nfrom decomposition.report import write_report\nwrite_report(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path)]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "1", "PATH": "/usr/bin:/bin"})
    assert (tmp_path / "report.html").read_bytes() == pages["one rung"].read_bytes()


def test_page_from_the_tree_equals_page_from_the_file(pages: dict[str, Path], tmp_path) -> None:
    tree = synthetic(CASES["no bank"])
    write_result(tree, tmp_path)
    assert write_report(tmp_path, tmp_path).read_text("utf-8") == text_of(pages["no bank"])


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("no bank", "Attribution quality was not measured"),
        ("no bank", "the bank of retrained outputs"),
        ("one rung", "rungs of the chain: Hessian, GGN, block GGN and EK-FAC"),
        ("undefined", "Shares of the steps are therefore undefined"),
        ("undefined", "2 base models were decomposed"),
        ("undefined", "the first base model alone"),
        ("undefined", "The curve is too narrow here"),
        ("whole", "indefinite: λ < |λ_min|"),
        ("whole", "Under every damping protocol and along every order"),
        ("whole", "400 masks (extrapolated)"),
        ("whole", "belongs to the damping and not to the steps"),
        (
            "undefined",
            "Shares of the LDS are undefined, as the total is within noise, under equal λ",
        ),
        ("whole", "repeated eigenvalue"),
        ("whole", "decompose run digits --out out/"),
    ],
)
def test_page_says_what_is_missing(case: str, text: str, pages: dict[str, Path]) -> None:
    assert text in " ".join(read(text_of(pages[case])).text)


def test_every_figure_has_a_finding_and_its_data(pages: dict[str, Path]) -> None:
    figures = re.findall(r"<figure.*?</figure>", text_of(pages["whole"]), flags=re.DOTALL)
    assert len(figures) >= 10
    for figure in figures:
        label = re.search(r'role="img" aria-label="([^"]+)"', figure)
        assert label is not None
        assert len(label[1]) > 30
        assert '.csv"' in figure


def test_drawing_leaves_global_settings_alone(pages: dict[str, Path]) -> None:
    import matplotlib as mpl

    assert mpl.rcParams["svg.fonttype"] == "path"
    assert mpl.rcParams["text.parse_math"]


def test_missing_result_and_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match="no result at"):
        write_report(tmp_path, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_report(synthetic(CASES["one rung"]), tmp_path / "file")


def test_markdown_has_the_tables_and_its_figures(tmp_path: Path) -> None:
    path = write_markdown(
        synthetic(Planted(extra=("a|<b>",), bank=False, examples=False)), tmp_path
    )
    text = path.read_text("utf-8")
    assert r"a\|\<b\>" in text
    for link in re.findall(r"\]\((\S+\.svg)\)", text):
        assert (tmp_path / link).stat().st_size > 1000
    widths = [
        {len(re.findall(r"(?<!\\)\|", row)) for row in t.splitlines()}
        for t in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    ]
    assert widths
    assert all(len(w) == 1 for w in widths)


def test_comparison_shows_every_result(tmp_path: Path) -> None:
    trees = [synthetic(Planted(problem="two", blocks=())) for _ in range(2)]
    page = write_report([*trees, synthetic(CASES["no bank"])], tmp_path).read_text("utf-8")
    text = " ".join(read(page).text)
    assert all(name in text for name in ("two (1)", "two (2)", "digits"))
    assert len(read(page).ids) == len(set(read(page).ids))


def test_a_list_of_one_result_is_its_page(pages: dict[str, Path], tmp_path: Path) -> None:
    path = write_report([synthetic(CASES["one rung"])], tmp_path)
    assert path.name == "report.html"
    assert path.read_bytes() == pages["one rung"].read_bytes()


def test_empty_result_gives_a_page(tmp_path: Path) -> None:
    tree = xr.DataTree(xr.Dataset(attrs=synthetic().attrs))
    page = write_report(tree, tmp_path).read_text("utf-8")
    assert "Not in this result: spectra; spectral errors" in page


def test_unknown_values_are_dashes(tmp_path: Path) -> None:
    tree = synthetic(Planted(examples=False, blocks=()))
    data = tree["attribution"].to_dataset()
    data["lds_mean"][:] = np.nan
    data["ceiling"][:] = np.nan
    tree["attribution"].dataset = data
    page = write_report(tree, tmp_path).read_text("utf-8")
    assert not re.search(r">\s*nan", page, flags=re.IGNORECASE)


def test_the_answer_comes_with_its_waterfall_and_each_section_shows_one_figure(
    pages: dict[str, Path],
) -> None:
    sections = re.findall(r"<section .*?</section>", text_of(pages["whole"]), flags=re.DOTALL)
    assert 'id="figure-waterfall-equal"' in sections[0]
    for section in sections[1:]:
        in_view = re.sub(r"<details.*</details>", "", section, flags=re.DOTALL)
        assert len(re.findall(r"<figure", in_view)) <= 1


def test_beside_the_chain_is_told_against_every_rung(tmp_path: Path) -> None:
    tree = synthetic(CASES["one rung"])
    tree["beside"] = xr.DataTree(
        xr.Dataset(
            {
                "difference": (
                    ("protocol", "other", "rung", "ci_bound"),
                    [[[[0.01, 0.02, 0.03]], [[-0.02, 0.0, 0.02]]]],
                ),
                "probability": (("protocol", "other", "rung"), [[[0.98], [0.5]]]),
            },
            {
                "protocol": ["equal"],
                "other": ["kpsvd", "theirs"],
                "rung": ["kfac"],
                "ci_bound": ["lower", "estimate", "upper"],
            },
        )
    )
    text = " ".join(read(write_report(tree, tmp_path).read_text("utf-8")).text)
    assert "KPSVD lies above K-FAC by 0.020 [0.010, 0.030]" in text
    assert "theirs is not told apart from K-FAC" in text
