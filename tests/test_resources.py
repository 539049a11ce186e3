"""Sizes in words."""

import pytest

from decomposition.resources import size_text

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.00 MiB"),
        (0.02 * GIB, "20.5 MiB"),
        (GIB - 1, "1,024 MiB"),
        (1.5 * GIB, "1.50 GiB"),
        (12 * GIB, "12.0 GiB"),
        (79_104 * GIB, "79,104 GiB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_shows_them(size: float, text: str) -> None:
    assert size_text(size) == text
