"""Derivatives that do not exist, and curvature that vanishes: named, with ways out that work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition import Problem, Recipe, Settings, build_chain, run
from decomposition.errors import ProblemError, UnsupportedModelError

TINY = Settings(masks=20, second_order_masks=4, matrix_norms=False, lattice=False, resamples=100)
ZERO = 5
"""The training example that is zero."""


class Network(nn.Module):
    """Two layers without a bias below, and an activation of one's own between them."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.below, self.above = nn.Linear(3, 4, bias=False), nn.Linear(4, 2)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.activation(self.below(x)))


def problem(
    activation: Callable[[Tensor], Tensor] = torch.tanh,
    swapped: bool = False,
    loss: nn.Module | None = None,
    **recipe: float,
) -> Problem:
    x = torch.randn(36, 3, generator=torch.Generator().manual_seed(0))
    x[ZERO] = 0.0
    y = (x[:, 0] > 0).long()
    train, query = (slice(8, 36), slice(8)) if swapped else (slice(28), slice(28, 36))
    made = Recipe(**({"epochs": 2} | recipe))  # type: ignore[arg-type]
    return Problem(
        Network(activation),
        loss or nn.CrossEntropyLoss(),
        (x[train], y[train]),
        (x[query], y[query]),
        made,
    )


def studied(one: Problem) -> None:
    levels = run(one, settings=TINY, progress=False)["attribution"].to_dataset()["lds_mean"]
    assert np.isfinite(levels.sel(rung="kfac").values).all()


def root(h: Tensor) -> Tensor:
    return h.square().sqrt()


def power(h: Tensor) -> Tensor:
    """Once differentiable at 0."""
    return h.abs().pow(1.5)


@pytest.mark.parametrize("work", [build_chain, studied])
def test_a_gradient_that_does_not_exist_is_named_by_row_and_parameter(
    work: Callable[[Problem], object],
) -> None:
    message = rf"gradient of the loss of train row {ZERO} in parameter below\.weight is not finite"
    with pytest.raises(UnsupportedModelError, match=message):
        work(problem(root))
    with pytest.raises(UnsupportedModelError, match=message.replace("train", "query")):
        work(problem(root, swapped=True))


@pytest.mark.parametrize("work", [build_chain, studied])
def test_so_is_a_second_derivative(work: Callable[[Problem], object]) -> None:
    message = rf"second derivative of the loss of train row {ZERO} in parameter below\.weight"
    with pytest.raises(UnsupportedModelError, match=message):
        work(problem(power))
    build_chain(problem(power, swapped=True))  # queries need gradients alone


def test_a_number_under_the_root_is_the_way_out() -> None:
    studied(problem(lambda h: (h.square() + 1e-6).sqrt()))


@pytest.mark.parametrize("recipe", [{"lr": 1e3}, {"lr": 1e30}, {"weight_decay": 1e3}])
def test_a_diverged_training_is_called_so(recipe: dict[str, float]) -> None:
    with pytest.raises(ProblemError, match=r"diverged.* went from 0\.\d+ to .* with lr = .*lower"):
        run(problem(**recipe), settings=TINY, progress=False)


def test_lowering_what_the_message_names_is_the_way_out() -> None:
    studied(problem(lr=0.1, weight_decay=1e-3))


def certain(loss: nn.Module | None = None) -> Problem:
    """Trained until every example has its answer with probability 1 − e⁻²⁰⁰."""
    start = problem(loss=loss)
    one = replace(start, train=(start.train[0], torch.zeros_like(start.train[1])))
    model = Network(torch.tanh)
    with torch.no_grad():
        model.above.weight.zero_()
        model.above.bias.copy_(torch.tensor([100.0, -100.0]))
    return replace(one, model=model, initial=start.model.state_dict())


def test_a_saturated_classifier_is_called_so() -> None:
    message = "mean eigenvalue of its GGN is .*0 of 28 training examples have a gradient.*saturated"
    with pytest.raises(ProblemError, match=message):
        run(certain(), settings=TINY, progress=False)


def test_label_smoothing_and_an_earlier_checkpoint_are_ways_out() -> None:
    smoothed = certain(nn.CrossEntropyLoss(label_smoothing=0.1))
    studied(replace(smoothed, model=Network(torch.tanh), initial=None))
    studied(replace(certain(), model=Network(torch.tanh), initial=None))
