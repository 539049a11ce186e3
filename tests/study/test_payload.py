"""A tree survives as bytes, and equal trees are equal bytes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from decomposition.errors import StudyError
from decomposition.study.store import bytes_tree, tree_bytes

VALUES = {
    "float32": np.float32([[1.5, np.nan], [-0.0, np.inf]]),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "reversed": np.arange(3)[::-1],
    "scalar": np.float64(0.1),
    "empty": np.zeros((0, 2)),
    "text": np.array(["kfac", "λ"]),
    "objects": np.array(["a", "long"], dtype=object),
    "truth": np.array([True, False]),
    "date": np.array(["2026-01-02"], dtype="datetime64[ns]"),
}


def tree(array: np.ndarray) -> xr.DataTree:
    dims = tuple(f"d{k}" for k in range(np.ndim(array)))
    inner = xr.Dataset({"a": (dims, array, {"unit": "s"})}, attrs={"n": np.int64(3), "none": None})
    outer = xr.Dataset({"b": ("rung", [1, 2])}, {"rung": ["x", "y"], "λ": ("rung", [0.1, 0.2])})
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"α": [1, 2]}), "/o": outer, "/p/i": inner})


@pytest.mark.parametrize("array", VALUES.values(), ids=list(VALUES))
def test_a_tree_survives(array: np.ndarray) -> None:
    before = tree(array)
    after = bytes_tree(tree_bytes(before))
    assert after.identical(before)
    kept = after["p/i/a"].values
    assert kept.dtype == (array.astype(str) if array.dtype == object else array).dtype
    assert list(after["o"].to_dataset().coords) == ["rung", "λ"]
    assert tree_bytes(after) == tree_bytes(before) == tree_bytes(tree(array.copy()))


def test_children_do_not_keep_what_they_inherit() -> None:
    parent = xr.Dataset(coords={"rung": ["x", "y"]})
    before = xr.DataTree.from_dict({"/": parent, "/c": xr.Dataset({"v": ("rung", [1.0, 2.0])})})
    after = bytes_tree(tree_bytes(before))
    assert after.identical(before)
    assert tree_bytes(before).count(b"'<U1'") == 1


def test_what_cannot_be_kept_is_named() -> None:
    with pytest.raises(StudyError, match="/p/i/a has type object"):
        tree_bytes(tree(np.array([{}, None], dtype=object)))
    with pytest.raises(StudyError, match="is of type set"):
        tree_bytes(xr.DataTree(xr.Dataset(attrs={"a": {1}})))
