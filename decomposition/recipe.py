"""How a model is trained: the recipe shared by the base model and every retrained one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from decomposition.errors import ProblemError

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and order of examples of one training run.

    The update at step t of T uses the mean loss over a batch and the learning rate
    ``lr`` (constant) or ``lr/2 · (1 + cos(π t / T))`` (cosine, t = 0 … T−1), with the
    conventions of ``torch.optim.SGD``, ``Adam`` and ``AdamW``. Every epoch visits the
    examples in a fresh order; the last batch of an epoch may be smaller and is kept.
    Weight decay acts in training only: the curvature is that of the plain mean loss,
    and damping λ takes the place of the decay in the influence function.

    Raises:
        ProblemError: a value is outside its range; the message names it.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Update rule."""
    lr: float = 0.03
    """Learning rate at the first step."""
    momentum: float = 0.9
    """Momentum of SGD (ignored by Adam and AdamW)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Averaging coefficients of Adam and AdamW."""
    eps: float = 1e-8
    """Denominator offset of Adam and AdamW."""
    weight_decay: float = 0.0
    """L2 penalty (SGD, Adam) or decoupled decay (AdamW)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning-rate schedule over the whole run."""
    epochs: int = 20
    """Passes over the training set, and the span of the schedule."""
    checkpoint: int | None = None
    """Epoch after which the model is taken, on the way through the schedule; None: the last."""
    batch_size: int = 32
    """Examples per step."""
    seed: int = 0
    """Seed of the base model's order of examples."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of training. Curvature is always computed in float64."""

    def __post_init__(self) -> None:
        """Check every value once, so that nothing downstream has to."""
        _one_of("optimizer", self.optimizer, ("sgd", "adam", "adamw"))
        _one_of("schedule", self.schedule, ("constant", "cosine"))
        _one_of("dtype", self.dtype, tuple(DTYPES))
        _in_range("lr", self.lr, 0.0, math.inf, open_low=True)
        _in_range("momentum", self.momentum, 0.0, 1.0)
        if len(self.betas) != 2:
            raise ProblemError(f"Recipe.betas must be two numbers, got {self.betas}")
        for beta in self.betas:
            _in_range("betas", beta, 0.0, 1.0)
        _in_range("eps", self.eps, 0.0, math.inf, open_low=True)
        _in_range("weight_decay", self.weight_decay, 0.0, math.inf)
        _whole("epochs", self.epochs, 0)
        if self.checkpoint is not None:
            _whole("checkpoint", self.checkpoint, 0)
            if self.checkpoint > self.epochs:
                raise ProblemError(
                    f"Recipe.checkpoint must be one of the {self.epochs} epochs, got "
                    f"{self.checkpoint}"
                )
        _whole("batch_size", self.batch_size, 1)
        _whole("seed", self.seed, 0)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The training precision as a torch dtype."""
        return DTYPES[self.dtype]

    @property
    def last_epoch(self) -> int:
        """Number of epochs that are run: the checkpoint, or all."""
        return self.epochs if self.checkpoint is None else self.checkpoint

    def steps_per_epoch(self, examples: int) -> int:
        """Number of batches in one epoch over ``examples`` examples: ⌈n / batch_size⌉."""
        return math.ceil(examples / self.batch_size)

    def learning_rate(self, step: int, total: int) -> float:
        """Learning rate at ``step`` (0-based) of ``total`` steps."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * step / total))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ProblemError(f"Recipe.{name} must be one of {', '.join(allowed)}, got {value!r}")


def _whole(name: str, value: int, least: int) -> None:
    if not math.isfinite(value) or int(value) != value or value < least:
        raise ProblemError(f"Recipe.{name} must be a whole number >= {least}, got {value}")


def _in_range(name: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    inside = (low < value if open_low else low <= value) and value < high
    if not (math.isfinite(value) and inside):
        bracket = "(" if open_low else "["
        raise ProblemError(f"Recipe.{name} must lie in {bracket}{low:g}, {high:g}), got {value}")
