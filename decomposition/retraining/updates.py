"""Optimiser steps on one flat buffer of parameters; the conventions are those of ``torch.optim``.

Every update acts on single parameters, so the parameters of many models are one vector here.
``sums`` is what the backward pass leaves: decay·sums + ∂ℓ/∂θ, see ``StackedLinear``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from decomposition.recipe import Recipe


class Update(ABC):
    """One optimiser's state for one buffer."""

    decay: float
    """Factor by which the backward pass multiplies ``sums`` before adding the gradient."""

    @abstractmethod
    def step(self, theta: Tensor, sums: Tensor, lr: float) -> None:
        """Move ``theta`` in place."""


class SGD(Update):
    """v ← μ v + g + w θ;  θ ← θ − lr v  (``torch.optim.SGD``; v is ``sums``)."""

    def __init__(self, recipe: Recipe) -> None:
        """Take momentum μ and weight decay w."""
        self.decay = recipe.momentum
        self.weight_decay = recipe.weight_decay

    def step(self, theta: Tensor, sums: Tensor, lr: float) -> None:
        """One step; the backward pass has already formed μ v + g."""
        if self.weight_decay:
            sums.add_(theta, alpha=self.weight_decay)
        theta.add_(sums, alpha=-lr)


class Adam(Update):
    """Adam, with L2 penalty (``torch.optim.Adam``) or decoupled decay (``torch.optim.AdamW``).

    m ← β₁ m + (1−β₁) g;  v ← β₂ v + (1−β₂) g²;
    θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
    """

    decay = 0.0

    def __init__(self, recipe: Recipe, theta: Tensor) -> None:
        """Allocate both moments."""
        self.beta1, self.beta2 = recipe.betas
        self.eps, self.weight_decay = recipe.eps, recipe.weight_decay
        self.decoupled = recipe.optimizer == "adamw"
        self.first, self.second = torch.zeros_like(theta), torch.zeros_like(theta)
        self.scratch = torch.empty_like(theta)
        self.steps = 0

    def step(self, theta: Tensor, sums: Tensor, lr: float) -> None:
        """One step; ``sums`` is the plain gradient and is overwritten."""
        self.steps += 1
        if self.weight_decay and self.decoupled:
            theta.mul_(1.0 - lr * self.weight_decay)
        elif self.weight_decay:
            sums.add_(theta, alpha=self.weight_decay)
        self.first.lerp_(sums, 1.0 - self.beta1)
        self.second.mul_(self.beta2).addcmul_(sums, sums, value=1.0 - self.beta2)
        correction = (1.0 - self.beta2**self.steps) ** 0.5
        torch.sqrt(self.second, out=self.scratch).div_(correction).add_(self.eps)
        theta.addcdiv_(self.first, self.scratch, value=-lr / (1.0 - self.beta1**self.steps))


def make_update(recipe: Recipe, theta: Tensor) -> Update:
    """The recipe's optimiser for the buffer ``theta``."""
    return SGD(recipe) if recipe.optimizer == "sgd" else Adam(recipe, theta)
