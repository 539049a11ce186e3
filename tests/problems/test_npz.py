"""NPZ files: the arrays that are meant, as they are; everything wrong names array and place."""

from __future__ import annotations

import io
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decomposition.errors import ProblemError
from decomposition.losses import CrossEntropy, MeanSquaredError
from decomposition.problems import load_problem

N = 30


def inputs(n: int = N, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *(shape or (3,))))


LABELS = np.arange(N) % 3


def save(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_rows_and_labels_are_those_of_the_arrays(tmp_path: Path) -> None:
    problem = load_problem(save(tmp_path, x=inputs(), y=LABELS), seed=4)
    assert isinstance(problem.loss_function, CrossEntropy)
    order = np.random.default_rng(4).permutation(N)
    rows = inputs()[order[6:]]
    np.testing.assert_allclose(problem.train[0], (rows - rows.mean(0)) / rows.std(0), atol=1e-6)
    np.testing.assert_array_equal(problem.train[1], LABELS[order[6:]])
    np.testing.assert_array_equal(problem.query[1], LABELS[order[:6]])


@pytest.mark.parametrize("word", ["query", "test"])
def test_query_arrays_are_the_queries(tmp_path: Path, word: str) -> None:
    arrays = {f"x_{word}": inputs(8, seed=1), f"y_{word}": LABELS[:8]}
    problem = load_problem(save(tmp_path, x_train=inputs(), y_train=LABELS, **arrays))
    assert (problem.num_examples, problem.num_queries) == (30, 8)
    assert sorted(problem.query[1].tolist()) == sorted(LABELS[:8].tolist())


def test_arrays_of_any_name_can_be_named(tmp_path: Path) -> None:
    name = save(tmp_path, a=inputs(), b=LABELS, c=inputs(5, seed=1), d=LABELS[:5])
    problem = load_problem(f"{name}?x=a&y=b&x_query=c&y_query=d&queries=4")
    assert (problem.num_examples, problem.num_queries) == (30, 4)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from(["f4", "f8", "i2", "u1", "?"]),
    st.sampled_from(["labels", "words", "numbers", "two outputs"]),
)
def test_every_shape_and_type_is_read(
    tmp_path_factory, shape: list[int], kind: str, target: str
) -> None:
    x = inputs(N, *shape).astype(kind) if kind[0] == "f" else (10 * inputs(N, *shape)).astype("i2")
    x = (x > 0) if kind == "?" else x.astype(kind)
    y = {
        "labels": LABELS - 5,
        "words": np.array(["a", "bb", "c"])[LABELS],
        "numbers": inputs(N, 1, seed=2)[:, 0],
        "two outputs": inputs(N, 2, seed=2),
    }[target]
    name = save(tmp_path_factory.getbasetemp(), x=x, y=y)
    problem = load_problem(f"{name}?constant=zero&duplicates=allow&query=0.5&hidden=none")
    assert problem.train[0].shape == (15, np.prod(shape))
    classes = target in ("labels", "words")
    assert isinstance(problem.loss_function, CrossEntropy if classes else MeanSquaredError)
    assert problem.blocks[-1].d_out == {"numbers": 1, "two outputs": 2}.get(target, 3)
    assert problem.display.get("image_shape") == (shape if len(shape) > 1 else None)


@pytest.mark.parametrize(
    ("y", "task", "outputs"),
    [(LABELS, "regression", 1), (LABELS.astype(float), "classification", 3)],
)
def test_the_task_can_be_said(tmp_path: Path, y: np.ndarray, task: str, outputs: int) -> None:
    problem = load_problem(f"{save(tmp_path, x=inputs(), y=y)}?task={task}")
    assert problem.blocks[-1].d_out == outputs


def test_pixels_that_never_change_become_zero(tmp_path: Path) -> None:
    x = inputs(N, 2, 2)
    x[:, 0, 0] = 3.0
    problem = load_problem(save(tmp_path, x=x, y=LABELS))
    assert not problem.train[0][:, 0].any()
    assert not problem.query[0][:, 0].any()


def hole(array: np.ndarray, *place: int) -> np.ndarray:
    array = array.copy()
    array[place] = np.nan
    return array


def frozen(column: int) -> np.ndarray:
    array = inputs()
    array[:, column] = 0.1
    return array


WRONG = {
    "no y": ({"x": inputs()}, "", r"has no array y or y_train; it has x: name one with y=…"),
    "no such": ({"x": inputs(), "y": LABELS}, "x=z", "no array z; it has x, y: name one with x="),
    "lengths": ({"x": inputs(), "y": LABELS[:9]}, "", r"y must be \(30,\) or \(30, outputs\)"),
    "flat x": ({"x": LABELS, "y": LABELS}, "", r"x must hold numbers of shape \(rows, features"),
    "words": ({"x": np.full((N, 2), "a"), "y": LABELS}, "", "x must hold numbers"),
    "complex": ({"x": inputs() * 1j, "y": LABELS}, "", "x must hold numbers.*complex128"),
    "empty": ({"x": np.zeros((0, 3)), "y": np.zeros(0, int)}, "", "is empty"),
    "nan": ({"x": hole(inputs(), 7, 1), "y": LABELS}, "", r"x\[7, 1\] is nan: drop that row"),
    "nan y": ({"x": inputs(), "y": hole(inputs(N, 1)[:, 0], 3)}, "", r"y\[3\] is nan"),
    "constant": ({"x": frozen(2), "y": LABELS}, "", r"'x\[:, 2\]' has the same value, 0.1, in all"),
    "one class": ({"x": inputs(), "y": 0 * LABELS}, "", "all 30 training labels are 0"),
    "fractions": ({"x": inputs(), "y": inputs(N, 1)[:, 0]}, "task=classification", "no class lab"),
    "text": ({"x": inputs(), "y": np.full(N, "a")}, "task=regression", "not numbers to regress on"),
    "constant y": ({"x": inputs(), "y": np.ones(N)}, "", "the 24 training rows is constant"),
    "few": ({"x": inputs(2), "y": np.array([0, 1])}, "", "1 rows to train on and 1 for queries"),
    "half": ({"x": inputs(), "y": LABELS, "x_query": inputs(4, seed=1)}, "", "no array y_query or"),
    "query shape": (
        {"x": inputs(), "y": LABELS, "x_query": inputs(4, 5), "y_query": LABELS[:4]},
        "", r"a row of x_query has shape \(5,\), a training row \(3,\)",
    ),
    "query label": (
        {"x": inputs(), "y": LABELS, "x_query": inputs(4, seed=1), "y_query": LABELS[:4] + 2},
        "", "query row 1 has the label 3",
    ),
    "copies": ({"x": inputs()[LABELS], "y": LABELS}, "", "row 0 and row 3 have the same inputs"),
    "dates": (
        {"x": inputs(), "y": np.full(N, "2020-01-01", "M8[D]")},
        "", "y must hold numbers or words, got datetime64",
    ),
    "records": (
        {"x": inputs(), "y": np.zeros(N, [("a", "f4")])}, "", "y must hold numbers or words",
    ),
    "objects": ({"x": inputs(), "y": np.array([{}] * N)}, "", "not a whole NPZ file of plain"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_wrong_is_said(tmp_path: Path, case: str) -> None:
    arrays, options, message = WRONG[case]
    with pytest.raises(ProblemError, match=message) as caught:
        load_problem(f"{save(tmp_path, **arrays)}?{options}".removesuffix("?"))
    assert "data.npz" in str(caught.value)


@given(st.integers(0, 1300))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, length: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = Path(save(folder, x=inputs(), y=LABELS).removeprefix("npz:"))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ProblemError, match="not a whole NPZ file"):
        load_problem(f"npz:{path}")


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_a_damaged_byte_changes_nothing_or_is_refused(
    tmp_path_factory, where: float, change: int, compressed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=inputs(), y=LABELS)
    whole = load_problem(f"npz:{path}").train
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= change
    path.write_bytes(content)
    with suppress(ProblemError):
        for part, truth in zip(load_problem(f"npz:{path}").train, whole, strict=True):
            np.testing.assert_array_equal(part, truth)


def test_a_header_that_claims_more_rows_than_the_file_has_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (10**13, 3)}
    np.lib.format.write_array_header_1_0(content, about)
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr("x.npy", content.getvalue() + bytes(24))
    with pytest.raises(ProblemError, match=r"x.npy is float64 of shape .* and 24 follow"):
        load_problem(f"npz:{tmp_path / 'data.npz'}")


@pytest.mark.parametrize("content", [pickle.dumps(3), b"some text", b""])
def test_a_pickle_is_never_opened(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr("x.npy", content)
    with pytest.raises(ProblemError, match=r"x.npy is no array .* a pickle, or text\?"):
        load_problem(f"npz:{tmp_path / 'data.npz'}")


@pytest.mark.parametrize("kind", [">f4", ">f8", np.longdouble, ">i2", "f2"])
def test_numbers_of_any_byte_order_and_width_are_read(tmp_path: Path, kind) -> None:
    x = np.round(16 * inputs()).astype(kind)
    problem = load_problem(save(tmp_path, x=x, y=LABELS.astype(">i8")))
    expected = load_problem(save(tmp_path, x=x.astype(np.float64), y=LABELS))
    np.testing.assert_array_equal(problem.train[0], expected.train[0])
    np.testing.assert_array_equal(problem.train[1], expected.train[1])


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", inputs())
    for name, message in (
        ("one.npy", "not a whole NPZ file of plain arrays"),
        ("absent.npz", "NPZ file .*absent.npz does not exist"),
    ):
        with pytest.raises(ProblemError, match=message):
            load_problem(f"npz:{tmp_path / name}")
