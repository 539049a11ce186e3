"""CSV files: what is a number, a category, a class; everything wrong names line and column."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decomposition import Problem
from decomposition.errors import ProblemError
from decomposition.losses import CrossEntropy, MeanSquaredError
from decomposition.problems import load_problem
from decomposition.problems.csv_file import encode
from decomposition.problems.csv_sheet import MISSING, SEPARATORS, read_sheet
from decomposition.problems.options import parse

N = 40
COLOURS = ["red", "green", "blue"]
HEADER = ["size", "colour", "shape", "price", "kind"]


def rows() -> list[list[str]]:
    generator = np.random.default_rng(0)
    size, price = generator.standard_normal(N), generator.integers(10, 99, N)
    return [
        [f"{size[i]:.6f}", COLOURS[i % 3], "round" if i % 2 else "flat",
         str(price[i]), "abc"[i % 3]]
        for i in range(N)
    ]  # fmt: skip


def write(path: Path, header: list[str] | None, body: list[list[str]], separator: str = ",") -> str:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *body] if header else body)
    return f"csv:{path}"


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return write(tmp_path / "shop.csv", HEADER, rows())


def raw_columns(problem: Problem) -> int:
    return problem.train[0].shape[1]


def test_words_are_classes_and_one_hot_inputs(spec: str) -> None:
    problem = load_problem(f"{spec}?target=kind")
    assert problem.name == "shop"
    assert isinstance(problem.loss_function, CrossEntropy)
    assert (problem.num_examples, problem.num_queries) == (32, 8)
    assert raw_columns(problem) == 1 + 3 + 1 + 1  # three colours, two shapes
    assert problem.blocks[-1].d_out == 3


def test_numbers_are_regressed_on_and_standardised(spec: str) -> None:
    problem = load_problem(f"{spec}?target=price&task=regression&drop=kind")
    assert isinstance(problem.loss_function, MeanSquaredError)
    order = np.random.default_rng(0).permutation(N)
    price = np.array([float(row[3]) for row in rows()])
    train = price[order[8:]]
    expected = (price[order] - train.mean()) / train.std()
    np.testing.assert_allclose(problem.train[1][:, 0], expected[8:], rtol=1e-5)
    np.testing.assert_allclose(problem.query[1][:, 0], expected[:8], rtol=1e-5)


def test_numbers_can_be_classes_and_categories(spec: str, tmp_path: Path) -> None:
    body = [[str(i % 4), str(i % 3), str(i * 1.5)] for i in range(30)]
    name = write(tmp_path / "codes.csv", ["code", "class", "x"], body)
    problem = load_problem(f"{name}?target=class&task=classification&categorical=code")
    assert raw_columns(problem) == 5
    assert problem.blocks[-1].d_out == 3


def test_encoding_is_one_column_per_value_and_one_for_two(spec: str) -> None:
    sheet = read_sheet(parse(spec), spec.removeprefix("csv:"))
    encoded = encode(sheet, HEADER[:4], [])
    assert encoded.names == (
        "size", "colour=blue", "colour=green", "colour=red", "shape=round", "price",
    )  # fmt: skip
    np.testing.assert_array_equal(encoded.values[:, 1:4].sum(1), 1.0)
    np.testing.assert_array_equal(encoded.values[:, 4], [row[2] == "round" for row in rows()])


@pytest.mark.parametrize("name", list(SEPARATORS))
def test_every_separator_is_found(tmp_path: Path, name: str, spec: str) -> None:
    other = write(tmp_path / "shop2.csv", HEADER, rows(), SEPARATORS[name])
    found = load_problem(f"{other}?target=kind")
    np.testing.assert_array_equal(found.train[0], load_problem(f"{spec}?target=kind").train[0])


def test_columns_without_a_header_have_numbers(tmp_path: Path, spec: str) -> None:
    bare = write(tmp_path / "bare.data", None, rows())
    for target in ("5", "last"):
        problem = load_problem(f"{bare}?target={target}")
        np.testing.assert_array_equal(
            problem.train[0], load_problem(f"{spec}?target=kind").train[0]
        )


def test_rows_with_missing_values_can_be_dropped(tmp_path: Path) -> None:
    body = rows()
    for i, mark in zip((3, 8, 20), ("?", "", "NA"), strict=True):
        body[i][i % 4] = mark
    name = write(tmp_path / "holes.csv", HEADER, body)
    with pytest.raises(ProblemError, match=r"holes.csv, line 5, column 'price': the value is miss"):
        load_problem(f"{name}?target=kind")
    problem = load_problem(f"{name}?target=kind&missing=drop")
    assert problem.num_examples + problem.num_queries == N - 3


def test_a_missing_value_in_a_column_left_out_does_not_matter(tmp_path: Path) -> None:
    body = rows()
    body[4][1] = "?"
    name = write(tmp_path / "hole.csv", HEADER, body)
    assert load_problem(f"{name}?target=kind&drop=colour").num_examples == 32


def test_quoted_separators_and_line_breaks_stay_inside_their_field(tmp_path: Path) -> None:
    body = [["a, b" if i % 2 else "c\nd", str(i), "xy"[i % 3 == 0]] for i in range(20)]
    name = write(tmp_path / "quoted.csv", ["text", "n", "y"], body)
    assert raw_columns(load_problem(f"{name}?target=y")) == 2


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path, spec: str) -> None:
    path = tmp_path / "bom.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "shop.csv").read_bytes())
    assert load_problem(f"csv:{path}?target=kind&drop=colour").num_examples == 32


def test_repeated_rows_are_refused_dropped_or_allowed(tmp_path: Path) -> None:
    body = rows()
    name = write(tmp_path / "twice.csv", HEADER, body + body[:10])
    with pytest.raises(ProblemError, match=r"line 2 and line 42 have the same .*10 such rows"):
        load_problem(f"{name}?target=kind")
    dropped = load_problem(f"{name}?target=kind&duplicates=drop")
    assert dropped.num_examples + dropped.num_queries == N
    allowed = load_problem(f"{name}?target=kind&duplicates=allow")
    assert allowed.num_examples + allowed.num_queries == N + 10


TEXT = st.text("abcXYZ ,;|\t\"'\n", min_size=1).map(lambda s: f"v{s}v")
FIELD = st.one_of(TEXT, st.floats(allow_nan=False, allow_infinity=False).map(repr))


@given(st.data())
def test_what_is_written_is_read(tmp_path_factory, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 6))
    separator = data.draw(st.sampled_from(["tab", "semicolon", "pipe", "comma"]))
    body = [[data.draw(FIELD) for _ in range(width)] for _ in range(height)]
    header = [f"column {j}" for j in range(width)]
    path = tmp_path_factory.getbasetemp() / "written.csv"
    write(path, header, body, SEPARATORS[separator])
    sheet = read_sheet(parse(f"csv:{path}?header=yes&sep={separator}"), str(path))
    assert sheet.names == tuple(header)
    assert sheet.frame.values.tolist() == body


@given(st.text(max_size=60))
def test_no_text_ends_in_a_traceback(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    with pytest.raises(ProblemError, match=r"any\.csv"):
        load_problem(f"csv:{path}?target=last&task=classification&missing=drop")


@pytest.mark.parametrize("mark", sorted(MISSING))
def test_every_mark_of_a_missing_value_is_seen(tmp_path: Path, mark: str) -> None:
    body = rows()
    body[0][0] = mark.upper()
    name = write(tmp_path / "mark.csv", HEADER, body)
    with pytest.raises(ProblemError, match="line 2, column 'size': the value is missing"):
        load_problem(f"{name}?target=kind")


def changed(row: int, column: int, value: str):
    def change(body: list[list[str]]) -> None:
        body[row][column] = value

    return change


def everywhere(column: int, value):
    def change(body: list[list[str]]) -> None:
        for i, row in enumerate(body):
            row[column] = value(i, row[column])

    return change


WRONG = {
    "no target": (None, "", r"names no target: add \?target=COLUMN, one of size, colour"),
    "other target": (None, "target=kid", "no column 'kid': name one of size, .*, or a number from"),
    "column 0": (None, "target=0", "no column '0'"),
    "no task": (None, "target=price", "'price' holds numbers: say task=class"),
    "task": (None, "target=kind&task=cluster", "task of csv:.* one of classification, regression"),
    "words": (None, "target=kind&task=regression", "line 2, column 'kind': 'a' is not a finite"),
    "infinite": (changed(6, 0, "inf"), "target=kind", "line 8, column 'size': 'inf' is not a fin"),
    "constant": (everywhere(0, lambda *_: "7"), "target=kind", "'size' has the same value, 7, in"),
    "one word": (everywhere(1, lambda *_: "red"), "target=kind", "'colour=red' has the same value"),
    "one class": (everywhere(4, lambda *_: "a"), "target=kind", "all 40 training labels are a"),
    "identifier": (
        everywhere(4, lambda i, _: f"id{i}"), "target=kind", "40 classes in 40 rows: is it a number"
    ),
    "ragged": (lambda body: body[2].append("x"), "target=kind", "line 4: 6 fields where most"),
    "typing error": (
        changed(30, 0, "1.2.3"), "target=kind", "line 32, column 'size': '1.2.3' stands among num"
    ),
    "decimal commas": (
        everywhere(0, lambda _, v: v.replace(".", ",")), "target=kind", "has a decimal comma"
    ),
    "unknown option": (None, "target=kind&tsk=1", "unknown option 'tsk' .*\n  target .*column to"),
    "nothing left": (None, "target=kind&drop=1,2,3,4", "leaves out the target, or every input"),
    "few": (lambda body: body.__delitem__(slice(2, None)), "target=kind", "1 rows to train on"),
    "fraction": (None, "target=kind&query=1.5", "query of csv:.* a fraction between 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_wrong_is_said(tmp_path: Path, case: str) -> None:
    change, options, message = WRONG[case]
    body = rows()
    if change is not None:
        change(body)
    name = write(tmp_path / "wrong.csv", HEADER, body, ";" if case == "decimal commas" else ",")
    with pytest.raises(ProblemError, match=message):
        load_problem(f"{name}?{options}" if options else name)


def test_a_column_of_many_words_is_no_category(tmp_path: Path) -> None:
    body = [[f"id{i}", str(i), "ab"[i % 2]] for i in range(100)]
    name = write(tmp_path / "ids.csv", ["id", "x", "y"], body)
    with pytest.raises(ProblemError, match=r"'id0' is a category, but .* 100 values.*drop=id"):
        load_problem(f"{name}?target=y")


def test_a_word_among_numbers_may_be_declared_a_category(tmp_path: Path) -> None:
    body = [[["2", "3", "4", "5more"][i % 4], str(i), "ab"[i % 2]] for i in range(40)]
    name = write(tmp_path / "doors.csv", ["doors", "x", "y"], body)
    assert raw_columns(load_problem(f"{name}?target=y&categorical=doors")) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 lines|no separator"),
        ("one column\n1\n2\n", "no separator found"),
        ("a,b\n1,2\n", "rows to train on|training labels"),
        ("a,a\n1,2\n3,4\n", "two columns are named 'a'"),
        ("red,round\ngreen,flat\n", "say header=yes or header=no"),
        (",x,y\n0,1.5,a\n1,2.5,b\n2,3.5,a\n3,4,b\n", r"column 1 has no name.*drop=1"),
        ("40,2\n" + "1,2,a\n3,4,b\n" * 20, "line 1: 2 fields where most lines have 3"),
        ('a,b\n"x,1\n', "line 2|no separator"),
    ],
)
def test_malformed_files_are_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ProblemError, match=message) as caught:
        load_problem(f"csv:{path}?target=last&task=classification")
    assert "bad.csv" in str(caught.value)


def test_files_that_are_absent_or_no_text_are_said(tmp_path: Path) -> None:
    (tmp_path / "image.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ProblemError, match=r"image.csv cannot be read as UTF-8 text"):
        load_problem(f"csv:{tmp_path}/image.csv?target=1")
    with pytest.raises(ProblemError, match=r"CSV file .*absent.csv does not exist: check the path"):
        load_problem(f"csv:{tmp_path}/absent.csv?target=1")
    with pytest.raises(ProblemError, match="is a folder, not a file"):
        load_problem(f"csv:{tmp_path}?target=1")


NUMBER = st.integers(-(10**6), 10**6).map(lambda k: k / 64)
ROW = st.tuples(NUMBER, NUMBER, st.booleans())


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(
        st.tuples(NUMBER, NUMBER, st.booleans()), min_size=6, max_size=30, unique_by=lambda r: r[0]
    ),
    st.sampled_from(["comma", "semicolon", "tab", "pipe"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
)
def test_generated_files_end_in_the_numbers_that_were_written_or_say_why(
    tmp_path_factory, table: list[tuple], separator: str, end: str, encoding: str, packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "made.csv"
    cut = SEPARATORS[separator]
    lines = [cut.join((repr(a), f'"{b}"', f'"yes{end}{cut}"' if c else "no")) for a, b, c in table]
    text = end.join(["a" + cut + "b" + cut + "c", *lines]) + end
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if packed else content)
    order = np.random.default_rng(0).permutation(len(table))
    held = max(1, round(0.2 * len(table)))
    x = np.array([row[:2] for row in table])[order]
    labels = np.array([row[2] for row in table])[order].astype(int)
    constant = len(set(x[:, 1])) == 1
    if constant or len(set(labels[held:])) < 2:
        message = "column 'b' has the same" if constant else "all of one class|training labels are"
        with pytest.raises(ProblemError, match=rf"made\.csv.*({message})"):
            load_problem(f"csv:{path}?target=c")
        return
    problem = load_problem(f"csv:{path}?target=c")
    mean, std = x[held:].mean(0), x[held:].std(0)
    expected = (x - mean) / np.where(std > 0, std, 1)
    expected[:, std == 0] = 0
    np.testing.assert_allclose(problem.train[0], expected[held:], atol=1e-5)
    np.testing.assert_allclose(problem.query[0], expected[:held], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(problem.train[1], labels[held:])


def test_quoted_line_breaks_in_every_row_hide_no_separator(tmp_path: Path) -> None:
    body = [[f"{'ab'[i % 2]}\n\n\nsecond", str(i), "xy"[i % 3 == 0]] for i in range(40)]
    name = write(tmp_path / "breaks.csv", ["text\nof a name", "n", "y"], body)
    assert raw_columns(load_problem(f"{name}?target=y")) == 2
    body[9][1] = "inf"
    name = write(tmp_path / "breaks.csv", ["text\nof a name", "n", "y"], body)
    with pytest.raises(ProblemError, match=r"breaks\.csv, line 42, column 'n': 'inf'"):
        load_problem(f"{name}?target=y")
    assert (tmp_path / "breaks.csv").read_text().splitlines()[41].endswith("inf,y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,x\n2,\0\n", "line 3: a NUL character"),
        (
            gzip.compress(b"a,b\n1,x\n2,y\n", mtime=0)[:-6],
            "cannot be read as UTF-8 text .*: decompress",
        ),
        ("a,b\n1,é\n".encode("latin-1"), "cannot be read as UTF-8 text"),
        (b"a,b\n" + b"1,x\n2,y\n" * 40 + b'"3,x\n', "line 82: unexpected end of data"),
        (b"a,b\n" + b"1,x\n2,y\n" * 40 + b'"3"4,x\n', "line 82: ',' expected after"),
        (b"a,b\n" + b"1,x\n2,y\n" * 4 + b'"3"4,x\n', "line 10: ',' expected after"),
        (b"a,b\n" + b"1,x\n2,y\n" * 40 + b"1\n", "line 82: 1 fields where most"),
        (b"a,b\n" + b"1,x\n2,y\n" * 40 + b"1,2,3,4\n", "line 82: 4 fields where most"),
        (b"a,b\n" + b"1,x\n2,y\n" * 40 + b"1e999,x\n", "line 82, column 'a': '1e999' is not a"),
    ],
)
def test_files_damaged_far_down_are_said_with_their_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "late.csv").write_bytes(content)
    with pytest.raises(ProblemError, match=rf"late\.csv.*{message}"):
        load_problem(f"csv:{tmp_path}/late.csv?target=b&duplicates=allow")


def test_rows_that_single_precision_makes_equal_have_ways_out_in_the_file(tmp_path: Path) -> None:
    """Distinct as written, equal as trained on."""
    path = tmp_path / "near.csv"
    rows = [(f"{i % 20}.{'0' * 11}{i // 20}", i % 2) for i in range(40)]
    path.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in rows))
    with pytest.raises(ProblemError, match=r"near.csv: in single precision.*duplicates=allow"):
        load_problem(f"csv:{path}?target=b&task=classification")
    assert (
        load_problem(f"csv:{path}?target=b&task=classification&duplicates=allow").num_examples == 32
    )
    path.write_text("a,b\n" + "".join(f"{float(a):.3f},{b}\n" for a, b in rows))
    assert (
        load_problem(f"csv:{path}?target=b&task=classification&duplicates=drop").num_examples == 16
    )
