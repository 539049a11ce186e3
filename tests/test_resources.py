"""Sizes in words, and limits of memory."""

import numpy as np
import pytest

from decomposition import DecompositionError, Settings, build_chain, influence_scores, run
from decomposition.resources import bytes_of, size_text
from tests import cases

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


@pytest.mark.parametrize("memory", [float("nan"), float("inf"), -1.0, 0, "8", True])
def test_a_limit_of_memory_is_a_number_above_zero(memory: object) -> None:
    ggn = build_chain(cases.tanh())["ggn"]
    limited = (
        lambda: Settings(memory=memory),  # type: ignore[arg-type]
        lambda: run(cases.tanh(), memory=memory),  # type: ignore[arg-type]
        lambda: influence_scores(cases.tanh(), ggn, 0.1, memory=memory),  # type: ignore[arg-type]
    )
    for limit in limited:
        with pytest.raises(DecompositionError, match=r"memory.* must .* \(0, inf\)"):
            limit()
    with pytest.raises(DecompositionError, match="products must be one of float64, float32"):
        run(cases.tanh(), products="float16")  # type: ignore[arg-type]


def test_no_limit_of_memory_is_one_to_choose() -> None:
    assert (bytes_of(None), bytes_of(np.float32(0.5))) == (None, 2**29)
