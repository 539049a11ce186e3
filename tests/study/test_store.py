"""Results on disk: the same bytes for the same tree, never trusted blindly."""

from __future__ import annotations

import logging
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition.atomic import ABANDONED_AFTER, unfinished
from decomposition.errors import StoreError
from decomposition.study.store import CellStore, Failure, Timing

KEY, OTHER = "a" * 64, "b" * 64


def tree(seed: int = 0) -> xr.DataTree:
    draws = np.random.default_rng(seed).normal(size=(30, 2)).astype(np.float32)
    levels = xr.Dataset(
        {"draws": (("draw", "rung"), draws), "ceiling": ((), 0.75)}, {"rung": ["ggn", "kfac"]}
    )
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"α": "β"}), "/levels/all": levels})


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    return CellStore(tmp_path)


def test_a_result_is_found_again(store: CellStore) -> None:
    assert store.load(KEY) is None
    assert not store.has(KEY)
    store.save(KEY, tree())
    assert store.has(KEY)
    found = store.load(KEY)
    assert found is not None
    assert found.identical(tree())
    assert store.keys() == [KEY]


def test_equal_trees_are_equal_bytes(store: CellStore, tmp_path: Path) -> None:
    store.save(KEY, tree())
    first = (store.cells / f"{KEY}.cell").read_bytes()
    found = store.load(KEY)
    assert found is not None
    for again in (tree(), found):
        store.save(KEY, again)
        assert (store.cells / f"{KEY}.cell").read_bytes() == first


DAMAGE = {
    "truncated": lambda content: content[:-7],
    "empty": lambda content: b"",
    "flipped": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "foreign": lambda content: b"something else",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_result_counts_as_missing(
    damage, store: CellStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(KEY, tree())
    path = store.cells / f"{KEY}.cell"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert store.load(KEY) is None
        assert not store.has(KEY)
    assert f"{path} is damaged" in caplog.text


def test_a_result_under_the_name_of_another_is_not_used(store: CellStore) -> None:
    store.save(KEY, tree())
    content = (store.cells / f"{KEY}.cell").read_bytes()
    (store.cells / f"{OTHER}.cell").write_bytes(content)
    assert not store.has(OTHER)


def test_failures_and_timings_are_kept_beside_the_result(store: CellStore) -> None:
    failure = Failure("tiny", "ValueError", "no\nnumbers", "Traceback …", "host", 2.0, 1.0)
    timing = Timing(1.5, "host", 3.0, "run")
    assert store.failure(KEY) is None
    store.save_failure(KEY, failure)
    store.save_timing(KEY, timing)
    assert store.failure(KEY) == failure
    assert failure.line == "ValueError: no"
    assert store.timing(KEY) == timing
    store.clear_failure(KEY)
    store.clear_failure(KEY)
    assert store.failure(KEY) is None
    assert store.keys() == []


def test_a_note_that_cannot_be_read_counts_as_none(store: CellStore) -> None:
    (store.failures / f"{KEY}.json").write_text('{"label": ')
    assert store.failure(KEY) is None


def test_a_full_disk_leaves_the_earlier_result(store: CellStore) -> None:
    store.save(KEY, tree())
    before = sorted(store.cells.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written .* finished tasks are kept"):
            store.save(KEY, tree(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(store.cells.iterdir()) == before
    found = store.load(KEY)
    assert found is not None
    assert found.identical(tree())


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=f"{tmp_path}/file.*cannot be used"):
        CellStore(tmp_path / "file")


def test_what_a_killed_process_left_is_removed_in_time(store: CellStore) -> None:
    old, new = unfinished(store.cells / "a"), unfinished(store.cells / "b")
    old.touch()
    new.touch()
    past = new.stat().st_mtime - 2 * ABANDONED_AFTER
    os.utime(old, (past, past))
    CellStore(store.folder)
    assert list(store.cells.iterdir()) == [new]
