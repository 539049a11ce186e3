"""Optimiser steps on one flat buffer of parameters; the conventions are those of ``torch.optim``.

Every update acts on single parameters, so the parameters of many models are one vector here.
``sums`` is what the backward pass leaves: decay·sums + ∂ℓ/∂θ, see ``StackedLinear``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.recipe import Recipe


class Update(ABC):
    """One optimiser with its state for one buffer."""

    @abstractmethod
    def step(self, lr: float) -> None:
        """Move the parameters in place."""


class SGD(Update):
    """v ← μ v + g + w θ;  θ ← θ − lr v, as ``torch.optim.SGD``; v is ``sums``."""

    def __init__(self, recipe: Recipe, theta: Tensor, sums: Tensor) -> None:
        """Start from v = 0."""
        self.weight_decay = recipe.weight_decay
        self.theta, self.velocity = theta, sums.zero_()

    def step(self, lr: float) -> None:
        """One step; the backward pass has already formed μ v + g."""
        if self.weight_decay:
            self.velocity.add_(self.theta, alpha=self.weight_decay)
        self.theta.add_(self.velocity, alpha=-lr)


class Adam(Update):
    """``torch.optim.Adam`` (L2 penalty) or ``AdamW`` (decoupled decay) in their fused form."""

    def __init__(self, recipe: Recipe, theta: Tensor, sums: Tensor) -> None:
        """Take ``sums`` for the gradient, and allocate both moments at the first step."""
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        theta.grad = sums.zero_()
        self.optimizer = kind(
            [theta],
            lr=recipe.lr,
            betas=recipe.betas,
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, lr: float) -> None:
        """One step; the plain gradient is in ``sums``."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()


def make_update(recipe: Recipe, theta: Float[Tensor, " n"], sums: Float[Tensor, " n"]) -> Update:
    """The recipe's optimiser for the parameters ``theta``."""
    return (SGD if recipe.optimizer == "sgd" else Adam)(recipe, theta, sums)


def gradient_decay(recipe: Recipe) -> float:
    """Factor by which the backward pass multiplies ``sums`` before it adds the gradient."""
    return recipe.momentum if recipe.optimizer == "sgd" else 0.0
