"""Spectra along training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from decomposition.chain import build_chain
from decomposition.errors import DecompositionError
from decomposition.recipe import Recipe
from decomposition.spectrum.training import checkpoints, default_epochs, training_spectra
from tests.cases import tanh

PROBLEM = replace(tanh(), recipe=Recipe(epochs=4, batch_size=8, schedule="cosine", dtype="float64"))


def test_the_last_checkpoint_is_the_trained_model() -> None:
    found = checkpoints(PROBLEM, [0, 2, 4])
    assert list(found) == [0, 2, 4]
    trained = PROBLEM.trained().model
    for a, b in zip(found[4].parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_first_checkpoint_is_the_initialisation_even_of_a_trained_problem() -> None:
    data = training_spectra(PROBLEM.trained(), [0], ["hessian"])
    expected = build_chain(PROBLEM)["hessian"].eigenvalues()
    np.testing.assert_allclose(data["eigenvalues"].squeeze()[0], expected, atol=1e-12)


def test_checkpoints_outside_the_recipe_are_refused() -> None:
    with pytest.raises(DecompositionError, match=r"epochs in 0 … 4"):
        training_spectra(PROBLEM, [5])


@pytest.mark.parametrize(
    ("last", "expected"), [(0, [0]), (4, [0, 1, 2, 4]), (20, [0, 1, 2, 5, 10, 20])]
)
def test_default_epochs(last: int, expected: list[int]) -> None:
    assert default_epochs(last) == expected
