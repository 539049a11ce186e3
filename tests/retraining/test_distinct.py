"""Equal masks are repeats of one mask."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decomposition.retraining import distinct

MASKS = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)


def test_distinct_masks_are_numbered_as_they_appear() -> None:
    np.testing.assert_array_equal(distinct.groups(MASKS), [0, 1, 0, 2, 1])
    assert distinct.count(MASKS) == 3


def test_equal_masks_share_the_mean_of_their_measurements() -> None:
    values = np.array([[1.0], [5.0], [3.0], [7.0], [6.0]])
    found = distinct.means(values, distinct.groups(MASKS))
    np.testing.assert_array_equal(found, [[2.0], [5.5], [7.0]])


def test_distinct_masks_keep_the_bits_of_their_measurements() -> None:
    values = np.random.default_rng(0).random((4, 2, 3), np.float32)
    assert distinct.means(values, np.arange(4)) is values


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(4, 70))
def test_groups_are_those_of_the_rows_themselves(rows: list[int], width: int) -> None:
    table = np.random.default_rng(width).random((10, width)) < 0.5
    masks = table[rows]
    group = distinct.groups(masks)
    equal = (masks[:, None] == masks[None]).all(-1)
    np.testing.assert_array_equal(group[:, None] == group[None], equal)
    assert distinct.count(masks) == len({mask.tobytes() for mask in masks})
