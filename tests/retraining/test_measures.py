"""Loss and margin of stored outputs, by hand."""

import numpy as np
import pytest
from scipy.special import logsumexp

from decomposition.errors import ProblemError
from decomposition.targets.functions import measure
from tests.cases import CASES

CELLS = (3, 2)


def outputs(problem, width: int) -> np.ndarray:
    shape = (*CELLS, problem.num_queries, width)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_loss_of_a_classifier() -> None:
    problem = CASES["gelu"]()
    f, labels = outputs(problem, 3), problem.query[1].numpy()
    wide = f.astype(np.float64)
    label = np.take_along_axis(wide, np.broadcast_to(labels, f.shape[:-1])[..., None], -1)[..., 0]
    values = measure(problem, f)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, logsumexp(wide, -1) - label, rtol=0, atol=1e-12)


def test_margin_is_the_log_odds_of_the_label() -> None:
    problem = CASES["gelu"]()
    f = outputs(problem, 3)
    p = np.exp(-measure(problem, f))
    values = measure(problem, f, "margin")
    np.testing.assert_allclose(values, np.log(p / (1 - p)), rtol=0, atol=1e-10)


def test_loss_of_a_regression() -> None:
    problem = CASES["tanh_regression"]()
    f = outputs(problem, 2)
    expected = ((f.astype(np.float64) - problem.query[1].numpy()) ** 2).mean(-1)
    np.testing.assert_allclose(measure(problem, f), expected, rtol=0, atol=1e-12)


def test_a_regression_has_no_margin() -> None:
    problem = CASES["tanh_regression"]()
    with pytest.raises(ProblemError, match="the loss is mse"):
        measure(problem, outputs(problem, 2), "margin")


def test_an_unknown_function_is_named() -> None:
    problem = CASES["gelu"]()
    with pytest.raises(ProblemError, match="loss, margin, got 'odds'"):
        measure(problem, outputs(problem, 3), "odds")  # type: ignore[arg-type]
