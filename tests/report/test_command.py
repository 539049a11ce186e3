"""``decompose report``: one result, several, Markdown, and what is wrong in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from decomposition import cli
from decomposition.results import write_result
from tests.results.synthetic import Planted, synthetic

SMALL = Planted(rungs=("kfac",), bank=False, examples=False, blocks=())


@pytest.fixture
def decompose(monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["decompose", "report", *map(str, arguments)])
        cli.main()

    return call


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    return [write_result(synthetic(SMALL), tmp_path / name).parent for name in ("a", "b")]


@pytest.mark.parametrize(
    ("count", "options", "written"),
    [
        (1, (), "report.html"),
        (1, ("--format", "md"), "report.md"),
        (2, (), "comparison.html"),
        (2, ("--format", "md"), "comparison.md"),
    ],
)
def test_what_is_written(
    count: int, options: tuple[str, ...], written: str, decompose, results: list[Path]
) -> None:
    decompose(*results[:count], *options)
    assert (results[0] / written).stat().st_size > 500


def test_another_folder(decompose, results: list[Path], tmp_path: Path) -> None:
    decompose(*results, "--out", tmp_path / "c")
    assert (tmp_path / "c" / "comparison.html").exists()


def test_one_line_says_what_is_wrong(
    decompose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        decompose(tmp_path / "nothing")
    assert stopped.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
