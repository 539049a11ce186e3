"""Random projections of gradients: unbiased, with the error that is stated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decomposition.curvature.jacobian_rows import per_example_gradients
from decomposition.errors import DecompositionError
from decomposition.scores import projected
from decomposition.scores.projected import Projection, projected_gradients
from tests import cases

SIZE, DIMENSION = 500, 64


def rows(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, SIZE, generator=generator, dtype=torch.float64)


def test_inner_products_are_unbiased_and_spread_as_stated() -> None:
    g, h = rows()
    h = h + g
    found = []
    for seed in range(300):
        a, b = Projection(SIZE, DIMENSION, seed)(torch.stack([g, h]))
        found.append(float(a @ b))
    values = np.array(found)
    stated = Projection(SIZE, DIMENSION).standard_error(g, h)
    assert abs(values.mean() - float(g @ h)) < 3.0 * values.std() / np.sqrt(len(values))
    assert 0.8 < values.std() / stated < 1.1


def test_the_error_falls_with_the_root_of_the_dimension() -> None:
    g, h = rows()

    def error(dimension: int) -> float:
        products = []
        for seed in range(200):
            a, b = Projection(SIZE, dimension, seed)(torch.stack([g, h]))
            products.append(float(a @ b))
        return float(np.std(products))

    assert error(16) / error(256) == pytest.approx(4.0, rel=0.25)


def test_rows_by_themselves_are_the_same() -> None:
    projection, g = Projection(SIZE, DIMENSION, 3), rows(3)
    together = projection(g)
    torch.testing.assert_close(torch.cat([projection(row[None]) for row in g]), together)
    longer = Projection(SIZE + 7, DIMENSION, 3)
    torch.testing.assert_close(longer(torch.cat([g, torch.zeros(3, 7)], 1)), together)


def test_gradients_are_projected_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cases.tanh()
    projection = Projection(problem.num_parameters, 32)
    expected = projection(per_example_gradients(problem, *problem.train))
    monkeypatch.setattr(projected, "GRADIENT_NUMBERS", 5 * problem.num_parameters)
    found = projected_gradients(problem, *problem.train, projection)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(DecompositionError, match=r"dimension 30 .* divide by its 4 groups"):
        Projection(SIZE, 30)
    with pytest.raises(DecompositionError, match=r"are \(n, 500\), got \(2, 4\)"):
        Projection(SIZE, DIMENSION)(torch.zeros(2, 4))
