"""The batched trainer against a plain loop with ``torch.optim``, in float64 to 1e-10."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from decomposition.inputs import apply
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.recipe import Recipe
from decomposition.retraining.trainer import BatchedTrainer
from decomposition.retraining.trial import choose_way
from tests.cases import CASES, classification, regression
from tests.retraining.plain import RECIPE, train_plain, untrained_start, with_recipe

MODELS = 3
RECIPES = {
    "sgd": replace(RECIPE, momentum=0.0),
    "momentum": RECIPE,
    "momentum_decay": replace(RECIPE, weight_decay=0.05),
    "cosine": replace(RECIPE, schedule="cosine"),
    "adam": replace(RECIPE, optimizer="adam", lr=0.01, weight_decay=0.05),
    "adamw": replace(RECIPE, optimizer="adamw", lr=0.01, weight_decay=0.5),
    "adam_cosine": replace(RECIPE, optimizer="adam", schedule="cosine", betas=(0.5, 0.9)),
    "one_batch": replace(RECIPE, batch_size=1000),
    "drop_last": replace(RECIPE, drop_last=True, schedule="cosine"),
    "nothing_to_drop": replace(RECIPE, drop_last=True, batch_size=13),
    "single_examples": replace(RECIPE, batch_size=1, epochs=1),
}


class PerExample(nn.Module):
    """Right on (B, features) inputs only: it flattens, and takes a softmax over dimension 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)
        self.register_buffer("shift", torch.tensor([0.1, -0.2, 0.3, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(torch.flatten(x, 1) - self.shift)
        return self.second(h * torch.softmax(h, dim=1))


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(x)


def per_example() -> Problem:
    torch.manual_seed(0)
    return classification(PerExample())


def in_place() -> Problem:
    model = mlp((4, 6, 5, 3), nn.ReLU, 0)
    for module in model:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return classification(model)


MODELS_TRIED = {
    **{k: v for k, v in CASES.items() if k != "one_example"},
    "per_example": per_example,
    "in_place": in_place,
    "narrow_regression": lambda: regression(mlp((4, 1), nn.Tanh, 0), outputs=1),
}


def orders(problem: Problem, examples: int) -> np.ndarray:
    """(epochs, MODELS, n) different examples in different orders for every model."""
    rng = np.random.default_rng(0)
    cells = (problem.recipe.epochs, MODELS)
    all_orders = [rng.permutation(problem.num_examples)[:examples] for _ in np.ndindex(cells)]
    return np.array(all_orders).reshape(*cells, examples)


def assert_equal_to_plain(problem: Problem, examples: int = 13) -> None:
    trainer, rows = BatchedTrainer(problem), orders(problem, examples)
    start, stack = untrained_start(problem), trainer.stack(MODELS)
    stack.load(0, {k: v.expand(MODELS, *v.shape) for k, v in start.items()})
    trainer.train(stack, lambda epoch: torch.from_numpy(rows[epoch]), lambda _: None)
    outputs = trainer.query_outputs(stack)
    for i in range(MODELS):
        model = train_plain(problem, start, lambda epoch, i=i: rows[epoch, i])
        expected = dict(model.named_parameters())
        assert [name for name, _ in stack.parameters()] == [*problem.trainable]
        for name, value in stack.parameters():
            torch.testing.assert_close(value[i], expected[name].data, rtol=0, atol=1e-10)
        expected_outputs = apply(model, problem.query[0]).detach()
        torch.testing.assert_close(outputs[i], expected_outputs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_optimiser_equals_the_plain_loop(recipe: Recipe) -> None:
    assert_equal_to_plain(with_recipe(CASES["gelu"](), recipe))


@pytest.mark.parametrize("name", MODELS_TRIED)
def test_every_model_equals_the_plain_loop(name: str) -> None:
    assert_equal_to_plain(with_recipe(MODELS_TRIED[name]()))


@pytest.mark.parametrize("name", [name for name in MODELS_TRIED if name != "per_example"])
def test_elementwise_models_need_no_vmap(name: str) -> None:
    problem = MODELS_TRIED[name]()
    assert choose_way(problem.model, problem.train[0]) == "direct"


def test_other_models_run_inside_vmap() -> None:
    problem = per_example()
    assert choose_way(problem.model, problem.train[0]) == "vmapped"


def test_images_that_the_model_flattens() -> None:
    flat = classification(mlp((4, 5, 3), nn.Tanh, 0))
    images = [(x.view(-1, 2, 2), y) for x, y in (flat.train, flat.query)]
    model = nn.Sequential(nn.Flatten(), flat.model)
    problem = Problem(model, flat.loss, *images, recipe=RECIPE)
    assert_equal_to_plain(problem)


def test_a_layer_that_is_no_linear_map_of_its_weight_runs_as_a_function() -> None:
    torch.manual_seed(0)
    problem = classification(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Scaled(5, 3)))
    assert choose_way(problem.model, problem.train[0]) == "function"
    assert_equal_to_plain(with_recipe(problem))


class Wrapped(nn.Linear):
    """The same map by a forward of its own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)


def test_a_linear_layer_with_a_forward_of_its_own_trains_like_any_other() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Wrapped(5, 3))
    assert_equal_to_plain(with_recipe(classification(model)))


def test_training_leaves_the_model_as_it_was() -> None:
    problem = with_recipe(CASES["gelu"]())
    before = untrained_start(problem)
    trainer = BatchedTrainer(problem)
    stack = trainer.stack(1)
    stack.load(0, {k: v[None] for k, v in before.items()})
    trainer.train(stack, lambda _: torch.arange(13)[None], lambda _: None)
    for name, value in problem.model.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None
