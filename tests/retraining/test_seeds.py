"""Counter-based seeds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from decomposition.retraining import seeds


@settings(deadline=None)
@given(st.integers(0, 2**70), st.integers(1, 60))
def test_an_order_is_a_permutation(seed: int, size: int) -> None:
    assert sorted(seeds.epoch_order(seed, 0, 3, size)) == list(range(size))


@settings(deadline=None)
@given(st.integers(1, 39), st.integers(2, 8), st.integers(1, 8))
def test_a_longer_bank_begins_with_the_masks_of_a_shorter_one(
    kept: int, masks: int, more: int
) -> None:
    short = seeds.subset_masks(3, 0, masks, kept, 40)
    long = seeds.subset_masks(3, 0, masks + more, kept, 40)
    np.testing.assert_array_equal(long[:masks], short)
    assert (long.sum(1) == kept).all()


def test_every_coordinate_matters() -> None:
    every = np.ones(50, bool)
    orders = [
        seeds.epoch_order(0, 0, 0, 50),
        seeds.epoch_order(1, 0, 0, 50),
        seeds.epoch_order(0, 1, 0, 50),
        seeds.epoch_order(0, 0, 1, 50),
        seeds.cell_order(0, 0, 0, 0, every),
        seeds.cell_order(0, 1, 0, 0, every),
        seeds.cell_order(0, 0, 1, 0, every),
        seeds.cell_order(2**32, 0, 0, 0, every),
        np.argsort(~seeds.subset_masks(0, 0, 1, 25, 50)[0], kind="stable"),
    ]
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_the_order_of_a_cell_is_a_permutation_of_all_without_those_left_out() -> None:
    kept = np.arange(50) % 3 > 0
    whole = seeds.cell_order(0, 4, 1, 2, np.ones(50, bool))
    assert seeds.cell_order(0, 4, 1, 2, kept).tolist() == whole[kept[whole]].tolist()


def test_known_values_never_change() -> None:
    """A bank on disk stays valid only as long as these do."""
    assert seeds.epoch_order(0, 0, 0, 8).tolist() == [6, 1, 4, 2, 5, 7, 3, 0]
    assert seeds.cell_order(0, 0, 0, 0, np.ones(8, bool)).tolist() == [2, 5, 7, 6, 3, 0, 1, 4]
    assert np.flatnonzero(seeds.subset_masks(0, 5, 6, 4, 8)[0]).tolist() == [1, 2, 4, 6]
    assert seeds.initial_seed(0, 1, 2) == 8494160947022706839


def test_every_example_is_kept_equally_often() -> None:
    counts = seeds.subset_masks(0, 0, 2000, 10, 20).sum(0)
    # draws without replacement spread less than the multinomial of the test: it can only pass
    # too easily on one side, so ask for a fit that is not too good either
    assert chisquare(counts).pvalue > 1e-3
    assert counts.std() > 5.0
