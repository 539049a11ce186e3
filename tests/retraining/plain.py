"""The usual PyTorch loop, one model at a time: the oracle of the batched trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from decomposition.inputs import call, take
from decomposition.problem import Problem
from decomposition.recipe import Recipe

RECIPE = Recipe(lr=0.1, epochs=3, batch_size=5, seed=7, dtype="float64")


def with_recipe(problem: Problem, recipe: Recipe = RECIPE) -> Problem:
    return replace(problem, recipe=recipe)


def untrained_start(problem: Problem) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in problem.model.named_parameters()}


def train_plain(
    problem: Problem, start: Mapping[str, Tensor], order: Callable[[int], np.ndarray]
) -> nn.Module:
    """Train one model with ``torch.optim`` on the examples ``order(epoch)``."""
    recipe = problem.recipe
    model = copy.deepcopy(problem.model).eval()
    model.load_state_dict({**model.state_dict(), **start})
    optimizer = _optimizer(recipe, model)
    schedule = None
    if recipe.schedule == "cosine":
        total = recipe.epochs * len(_batches(recipe, order(0)))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    criterion = nn.MSELoss() if problem.loss_function.name == "mse" else nn.CrossEntropyLoss()
    x, y = problem.train
    for epoch in range(recipe.epochs):
        for rows in _batches(recipe, order(epoch)):
            optimizer.zero_grad()
            criterion(call(model, take(x, rows)), y[rows]).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
    return model


def _batches(recipe: Recipe, order: np.ndarray) -> DataLoader:
    return DataLoader(order.tolist(), recipe.batch_size, drop_last=recipe.drop_last)


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=decay
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(
        model.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=decay
    )
