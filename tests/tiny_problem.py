"""A problem for command-line tests: ``tests/tiny_problem.py:make`` and a slow twin."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from decomposition import Problem, Recipe


def make(epochs: int = 2) -> Problem:
    """32 examples, P = 26."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(38, 3, generator=generator)
    noise = torch.randn(38, generator=generator)
    y = (x[:, 0] + 0.5 * noise > 0).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return Problem(
        model,
        nn.CrossEntropyLoss(),
        (x[:32], y[:32]),
        (x[32:], y[32:]),
        recipe=Recipe(epochs=epochs, batch_size=8),
        name="tiny",
    )


def slow() -> Problem:
    """The same with enough epochs that a bank takes seconds."""
    return make(epochs=100)


def broken() -> Problem:
    """Fails as a user's code does."""
    raise FileNotFoundError("weights.pt")


def nan() -> Problem:
    """Inputs with a hole."""
    problem = make()
    x, y = problem.train
    x = x.clone()
    x[3, 1] = float("nan")
    return replace(problem, train=(x, y))
