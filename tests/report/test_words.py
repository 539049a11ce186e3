"""Numbers and verdicts: what is rounded, what is resolved, what is undefined."""

from __future__ import annotations

import json
import math

import pytest

from decomposition.report.content import Table
from decomposition.report.interval import Interval
from decomposition.report.result import Result
from decomposition.report.show import ShownTable
from decomposition.report.verdict import blame, sentences
from decomposition.report.wording import (
    fixed,
    isolated,
    middle_cut,
    number,
    percent,
    some,
    span,
    telling_parts,
    without_folders,
)
from tests.results.synthetic import Planted, synthetic


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0421, "−0.0421"),
        (1234.5, "1234"),
        (3.2e-7, "3.20·10⁻⁷"),
        (-2e9, "−2.00·10⁹"),
        (math.nan, "–"),
        (-math.inf, "−∞"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_rounding_to_zero_has_no_sign() -> None:
    assert fixed(-0.0001) == "0.000"


def test_exact_values_show_no_interval() -> None:
    assert span(Interval(0.5, 0.5, 0.5)) == "0.500"
    assert span(Interval(0.4, 0.5, 0.6)) == "0.50 [0.40, 0.60]"
    assert percent(Interval(-0.1, 0.25, 0.6)) == "25% [−10, 60]"


def test_a_users_text_keeps_its_direction_to_itself() -> None:
    assert isolated("plain") == "plain"
    assert isolated("a\u202eb") == "\u2068a\u202eb\u2069"
    assert isolated("a\x00b") == "\u2068a�b\u2069"


def test_overlapping_steps_are_not_resolved() -> None:
    found = blame(Result(synthetic()), "lds", "equal")
    assert found is not None
    assert found.largest is None
    assert found.leading[:2] == ["cross_layer", "eigenbasis"]


def test_exact_errors_are_resolved() -> None:
    found = blame(Result(synthetic()), "frobenius_squared", "equal")
    assert found is not None
    assert found.largest == "cross_layer"


def test_recorded_verdict_is_told() -> None:
    tree = synthetic()
    told = {
        "equal": {"candidate": "cross_layer", "resolved": True, "probability": 0.97},
        "relative": {"candidate": "eigenbasis", "resolved": True, "probability": 0.99},
    }
    tree["shares"].attrs["verdict"] = json.dumps(told)
    first, second, third = sentences(Result(tree))
    assert "costs 0.170 [0.155, 0.185] of attribution quality (LDS) under equal λ" in first
    assert second.startswith("The largest step is cross-layer (drop the coupling between layers)")
    assert second.endswith("44% [35, 53] of it (P = 0.97).")
    assert third.startswith("The verdict depends on the damping: under relative λ it is eigenbasis")


def test_recorded_verdict_says_how_many_masks_resolve_it() -> None:
    tree = synthetic()
    told = {"candidate": "cross_layer", "resolved": False, "probability": 0.8, "more_masks": 1200}
    tree["shares"].attrs["verdict"] = json.dumps({"equal": told})
    assert "about 1,200 more masks would resolve it" in sentences(Result(tree))[1]


def test_a_gain_blames_no_step() -> None:
    tree = synthetic()
    shares = tree["shares"].to_dataset()
    shares["total"] *= -1
    shares["drop"] *= -1
    tree["shares"].dataset = shares[["drop", "share", "total", "defined", "level"]]
    first, second, _ = sentences(Result(tree))
    assert "raises the LDS" in first
    assert "no step is to blame" in second


def test_undefined_shares_are_said() -> None:
    first, second, _ = sentences(Result(synthetic(Planted(undefined=True))))
    assert "is not resolved from zero" in first
    assert "undefined" in second


def test_csv_has_full_precision_and_three_columns_for_an_interval() -> None:
    table = Table("t", "c", ("rung", "LDS"), (("a,b", Interval(0.1, 1 / 3, 0.5)), ("c", None)))
    assert table.csv() == (
        'rung,LDS lower,LDS estimate,LDS upper\n"a,b",0.1,0.3333333333333333,0.5\nc,,,\n'
    )


def test_table_shows_itself_in_a_notebook() -> None:
    html = ShownTable("t", "<c>", ("a",), (("<x>",),))._repr_html_()
    assert "<table role" in html
    assert "&lt;x&gt;" in html
    assert "<x>" not in html


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("digits", "digits"),
        ("/data/my files/net.py:problem?width=2, 4, epoch 3", "net.py:problem?width=2, 4, epoch 3"),
        ("csv:tables/a.csv?target=up/down", "csv:a.csv?target=up/down"),
    ],
)
def test_a_file_is_named_without_its_folders(name: str, shown: str) -> None:
    assert without_folders(name) == shown


def test_a_long_name_keeps_both_ends() -> None:
    assert middle_cut("abcdefghij", 10) == "abcdefghij"
    assert middle_cut("abcdefghijk", 6) == "abc…jk"


def test_of_many_names_two_are_told() -> None:
    assert some(["a", "b", "c"], 3) == "a, b and c"
    assert some(["a", "b", "c", "d"], 3) == "a, b and 2 more"


def test_names_keep_the_parts_that_tell_them_apart() -> None:
    names = ["digits, 16, epoch 10", isolated("digits, 16×4, epoch 10")]
    assert telling_parts(names) == ["16", isolated("16×4")]
    assert telling_parts(["digits, 16"]) == ["digits, 16"]
    assert telling_parts(["same", "same"]) == ["same", "same"]
