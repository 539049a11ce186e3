"""IDX files: read as written, plain or compressed; everything wrong with them is said."""

from __future__ import annotations

import gzip
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from decomposition.errors import ProblemError
from decomposition.problems import Variant, load_problem, make_problem
from decomposition.problems.idx import TYPES, read_idx

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CODES = {np.dtype(kind).newbyteorder("="): code for code, kind in TYPES.items()}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype], array.ndim])
    sizes = np.array(array.shape, ">u4").tobytes()
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def data(n: int, seed: int, side: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (n, side, side), dtype=np.uint8)
    images[:, 0, 0] = 0  # as in MNIST, the corner never changes
    return images, (np.arange(n) % 3).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tiny-mnist"
    root.mkdir()
    for name, array in zip(NAMES, (*data(60, 0), *data(20, 1)), strict=True):
        (root / name).write_bytes(idx_bytes(array))
    return root


@given(
    arrays.arrays(
        st.sampled_from(list(CODES)),
        arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
    ),
    st.booleans(),
)
def test_what_is_written_is_read(tmp_path_factory, array: np.ndarray, compressed: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "array"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if compressed else content)
    found = read_idx(path, array.ndim)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(st.binary(max_size=40))
def test_no_bytes_end_in_a_traceback(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(content)
    with suppress(ProblemError):  # anything else is a defect
        read_idx(path, 1)


@given(st.integers(0, 10 + 60 * 16))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(idx_bytes(data(60, 0)[0])[:length])
    with pytest.raises(ProblemError, match=r"truncated|not an IDX file|inside its header"):
        read_idx(path, 3)


def test_rows_are_the_images_of_the_files_standardised(folder: Path) -> None:
    problem = load_problem(f"idx:{folder}", seed=2)
    assert (problem.name, problem.num_examples, problem.num_queries) == ("tiny-mnist", 60, 20)
    assert problem.display["image_shape"] == [4, 4]
    images, labels = data(60, 0)
    order = np.random.default_rng(2).permutation(60)
    raw = images.reshape(60, 16).astype(float)
    expected = (raw[order] - raw.mean(0)) / np.where(raw.std(0) > 0, raw.std(0), 1)
    np.testing.assert_allclose(problem.train[0], expected, atol=1e-6)
    np.testing.assert_array_equal(problem.train[1], labels[order])


def test_compressed_files_give_the_same_problem(folder: Path) -> None:
    plain = load_problem(f"idx:{folder}")
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    packed = load_problem(f"idx:{folder}")
    for one, other in zip(
        (*plain.train, *plain.query), (*packed.train, *packed.query), strict=True
    ):
        assert torch.equal(one, other)


def test_options_choose_rows_network_and_resolution(folder: Path) -> None:
    problem = load_problem(f"idx:{folder}?examples=30&queries=7&pool=2&hidden=5-4&activation=tanh")
    assert (problem.num_examples, problem.num_queries) == (30, 7)
    assert [(b.d_in, b.d_out) for b in problem.blocks] == [(4, 5), (5, 4), (4, 3)]
    assert problem.display["image_shape"] == [2, 2]


def test_a_variant_applies_to_files_too(folder: Path) -> None:
    whole = make_problem(f"idx:{folder}")
    noisy = make_problem(f"idx:{folder}?label_noise=0.5&hidden=9", variant=Variant(hidden=(3,)))
    assert int((whole.train[1] != noisy.train[1]).sum()) == 30
    assert noisy.blocks[0].d_out == 3


def rewrite(name: str, array: np.ndarray):
    return lambda folder: (folder / name).write_bytes(idx_bytes(array))


DAMAGE = {
    "absent": (lambda f: (f / NAMES[2]).unlink(), "has no query images: a file named t10k-images"),
    "magic": (
        lambda f: (f / NAMES[0]).write_bytes(b"<html>"),
        "not an IDX file: it starts with 3c",
    ),
    "empty": (lambda f: (f / NAMES[1]).write_bytes(b""), "not an IDX file: it starts with nothing"),
    "gzip": (
        lambda f: (f / NAMES[0]).write_bytes(gzip.compress(b"0" * 999)[:-9]),
        "train-images-idx3-ubyte cannot be read: EOFError",
    ),
    "exchanged": (rewrite(NAMES[0], data(60, 0)[1]), r"has 1 dimensions \(labels\), 3 are needed"),
    "counts": (rewrite(NAMES[1], data(59, 0)[1]), "has 60 images, but .* has 59 labels"),
    "pixels": (
        rewrite(NAMES[2], data(20, 1, side=5)[0]),
        r"\(4, 4\) pixels, query images \(5, 5\)",
    ),
    "none": (rewrite(NAMES[0], np.zeros((0, 4, 4), np.uint8)), "images, but"),
    "one class": (rewrite(NAMES[1], np.zeros(60, np.uint8)), "all 60 training labels are 0"),
    "new class": (rewrite(NAMES[3], np.full(20, 7, np.uint8)), "query row 0 has the label 7"),
    "labels": (rewrite(NAMES[3], np.zeros(20, np.float32)), "labels must be whole numbers"),
    "copies": (rewrite(NAMES[2], data(60, 0)[0][:20]), "image 0 and query image 0 have the same"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_what_is_wrong_is_said(folder: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(ProblemError, match=message) as caught:
        load_problem(f"idx:{folder}")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("pool=3", "4 × 4 pixels cannot be cut into squares of side 3"),
        ("examples=61", "has 60 rows to train on and 20 for queries, but 61 and 1 are needed"),
        ("queries=0", "option queries of idx:.* must be a whole number >= 1, got '0'"),
        ("target=3", "unknown option 'target'"),
    ],
)
def test_wrong_options_are_said(folder: Path, options: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        load_problem(f"idx:{folder}?{options}")


def test_queries_that_are_training_images_can_be_dropped_or_allowed(folder: Path) -> None:
    images = data(20, 1)[0]
    images[:5] = data(60, 0)[0][:5]
    (folder / NAMES[2]).write_bytes(idx_bytes(images))
    assert load_problem(f"idx:{folder}?duplicates=drop").num_queries == 15
    assert load_problem(f"idx:{folder}?duplicates=allow").num_queries == 20


def test_an_absent_folder_is_said() -> None:
    with pytest.raises(ProblemError, match="no folder nowhere: check the path"):
        load_problem("idx:nowhere")
