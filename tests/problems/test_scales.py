"""Columns of any magnitude are standardised right; one absurd value among others is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decomposition import Problem
from decomposition.errors import ProblemError
from decomposition.problems import load_problem
from decomposition.problems.table import standardised

N = 40
ORDINARY = np.random.default_rng(0).standard_normal(N)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(-1060, 1000), st.floats(-1e3, 1e3), st.integers(0, 9))
def test_no_power_of_two_changes_a_standardised_bit(power: int, shift: float, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-50, 50, (20, 2)) + np.round(shift)
    expected = standardised(x[:15], x[15:])
    if (np.abs(x[:15]).max(0) == 0).any():
        return
    found = standardised(np.ldexp(x[:15], power), np.ldexp(x[15:], power))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scale", ["1e-300", "1e-200", "1", "1e200", "4e307"])
def test_deviations_are_those_of_wider_numbers(scale: str) -> None:
    x = ORDINARY[:, None] * np.longdouble(scale)  # 15 bits of exponent on x86, 8 more of mantissa
    if np.longdouble("1e400") == np.inf:
        pytest.skip("no wider numbers here")
    train, query = standardised(x[:30].astype(float), x[30:].astype(float))
    mean, std = x[:30].mean(0), x[:30].std(0)
    np.testing.assert_allclose(train, ((x[:30] - mean) / std).astype(float), atol=1e-14)
    np.testing.assert_allclose(query, ((x[30:] - mean) / std).astype(float), atol=1e-14)


def csv(folder: Path, column: list[str]) -> str:
    body = "".join(f"{v},{i},{i % 7}\n" for i, v in enumerate(column))
    (folder / "scales.csv").write_text(f"size,b,y\n{body}")
    return f"csv:{folder}/scales.csv?target=y&task=regression"


def npz(folder: Path, column: np.ndarray, **more: np.ndarray) -> str:
    x = np.column_stack([column, np.arange(len(column))])
    np.savez(folder / "scales.npz", x=x, y=np.arange(len(column)) / 3, **more)
    return f"npz:{folder}/scales.npz"


def same_inputs(one: Problem, other: Problem) -> None:
    for a, b in ((one.train[0], other.train[0]), (one.query[0], other.query[0])):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 5e307])
def test_uniformly_huge_and_tiny_columns_are_those_of_ordinary_ones(
    tmp_path: Path, scale: float
) -> None:
    ordinary = load_problem(csv(tmp_path, [repr(float(v)) for v in ORDINARY]))
    same_inputs(load_problem(csv(tmp_path, [repr(float(v * scale)) for v in ORDINARY])), ordinary)
    ordinary = load_problem(npz(tmp_path, ORDINARY))
    same_inputs(load_problem(npz(tmp_path, ORDINARY * scale)), ordinary)


def test_two_values_at_the_ends_of_all_doubles_are_minus_one_and_one(tmp_path: Path) -> None:
    problem = load_problem(csv(tmp_path, ["-1e308", "1e308"] * (N // 2)))
    assert set(np.sign(problem.train[0][:, 0].numpy())) == {-1.0, 1.0}
    assert float(problem.train[0][:, 0].std(correction=0)) == pytest.approx(1.0)


@pytest.mark.parametrize("sign", [1e20, -1e30, 9.96921e36, 1e308, -1.7976931348623157e308])
def test_one_absurd_value_is_named_as_a_sign_for_a_missing_one(tmp_path: Path, sign: float) -> None:
    column = ORDINARY.copy()
    column[[5, 9]] = sign
    words = r"line 7, column 'size': .* looks like a sign for a missing value: .*drop=COLUMN"
    name = csv(tmp_path, [repr(float(v)) for v in column])
    with pytest.raises(ProblemError, match=rf"scales\.csv, {words}"):
        load_problem(name)
    assert load_problem(f"{name}&drop=size").num_examples == 32  # the ways out
    left_empty = ["" if i in (5, 9) else repr(float(v)) for i, v in enumerate(column)]
    assert load_problem(f"{csv(tmp_path, left_empty)}&missing=drop").num_examples == 30
    with pytest.raises(ProblemError, match=r"scales\.npz, row 5, column 'x\[:, 0\]': .* sign for"):
        load_problem(npz(tmp_path, column))


def test_a_target_may_be_a_sign_for_a_missing_value_too(tmp_path: Path) -> None:
    y = np.arange(N) / 3
    y[3] = 1e308
    np.savez(tmp_path / "y.npz", x=ORDINARY[:, None], y=y)
    with pytest.raises(ProblemError, match=r"y\.npz, row 3, target '0': 1e\+308 stands among"):
        load_problem(f"npz:{tmp_path}/y.npz")


def test_a_query_far_from_all_training_rows_is_named(tmp_path: Path) -> None:
    query = np.column_stack([[1e-5, 1.0], [1.0, 2.0]])
    name = npz(tmp_path, ORDINARY * 1e-300, x_query=query, y_query=np.array([0.5, 0.5]))
    with pytest.raises(ProblemError, match=r"scales\.npz: a query's input, column 'x\[:, 0\]'"):
        load_problem(name)


@pytest.mark.parametrize(
    "column", [np.arange(N) % 2 * 6e-17, 10.0 ** -np.arange(N), [0, 1e12] * 20]
)
def test_wide_ranges_that_are_no_sign_are_taken(tmp_path: Path, column: np.ndarray) -> None:
    assert load_problem(npz(tmp_path, np.asarray(column))).num_examples == 32
