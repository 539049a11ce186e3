"""How a model is trained: the recipe shared by the base model and every retrained one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decomposition.checks import (
    Rule,
    check_fields,
    flag,
    number,
    one_of,
    optional,
    seed,
    several,
    whole,
)
from decomposition.errors import ProblemError

DTYPES = {"float32": torch.float32, "float64": torch.float64}
RULES: dict[str, Rule] = {
    "optimizer": one_of("sgd", "adam", "adamw"),
    "lr": number(0, above=True),
    "momentum": number(0, 1),
    "betas": several(number(0, 1), 2),
    "eps": number(0, above=True),
    "weight_decay": number(0),
    "schedule": one_of("constant", "cosine"),
    "epochs": whole(),
    "checkpoint": optional(whole()),
    "batch_size": whole(1),
    "drop_last": flag,
    "seed": seed,
    "dtype": one_of(*DTYPES),
}
"""What each field of a Recipe may be."""


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and order of examples of one training run.

    The update at step t of T uses the mean loss over a batch and the learning rate
    ``lr`` (constant) or ``lr/2 · (1 + cos(π t / T))`` (cosine, t = 0 … T−1), with the
    conventions of ``torch.optim.SGD``, ``Adam`` and ``AdamW``. Every epoch visits the
    examples in a fresh order; its last batch may be smaller, and is kept unless ``drop_last``.
    Weight decay acts in training only: the curvature is that of the plain mean loss,
    and damping λ takes the place of the decay in the influence function, unless
    ``Problem.weight_decay_in_curvature`` says otherwise.

    Raises:
        ProblemError: a value of the wrong type or outside its range; the message names it.
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
    drop_last: bool = False
    """Leave out the last batch of an epoch where it is smaller, as a ``DataLoader`` does."""
    seed: int = 0
    """Seed of the base model's order of examples."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of training. Curvature is always computed in float64."""

    def __post_init__(self) -> None:
        """Check every value once, so that nothing downstream has to."""
        check_fields(self, RULES, ProblemError)
        if self.last_epoch > self.epochs:
            raise ProblemError(
                f"Recipe.checkpoint must be one of the {self.epochs} epochs, got {self.checkpoint}"
            )

    @property
    def stated(self) -> bool:
        """Whether somebody said that training goes like this."""
        return True

    @property
    def torch_dtype(self) -> torch.dtype:
        """The training precision as a torch dtype."""
        return DTYPES[self.dtype]

    @property
    def last_epoch(self) -> int:
        """Number of epochs that are run: the checkpoint, or all."""
        return self.epochs if self.checkpoint is None else self.checkpoint

    def steps_per_epoch(self, examples: int) -> int:
        """Number of batches in one epoch over n ``examples``.

        ⌈n / batch_size⌉, or ⌊n / batch_size⌋ with ``drop_last``.

        Raises:
            ProblemError: there is none.
        """
        if not self.drop_last:
            return math.ceil(examples / self.batch_size)
        if examples < self.batch_size:
            raise ProblemError(
                f"Recipe.drop_last leaves out the only batch of an epoch: the {examples} examples "
                f"that a model is trained on do not fill Recipe.batch_size = {self.batch_size}; "
                f"lower batch_size to {examples} at most, train on more examples (subsets: a "
                "larger alpha), or set drop_last=False"
            )
        return examples // self.batch_size

    def batches(self, rows: Tensor) -> tuple[Tensor, ...]:
        """An epoch's order of examples (…, n) cut into its batches (…, batch_size).

        Raises:
            ProblemError: there is none, see ``steps_per_epoch``.
        """
        return rows.split(self.batch_size, -1)[: self.steps_per_epoch(rows.shape[-1])]

    def learning_rate(self, step: int, total: int) -> float:
        """Learning rate at ``step`` (0-based) of ``total`` steps."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * step / total))

    @property
    def diverged(self) -> str:
        """What a message says of steps that were too large, and what to do."""
        decay, way = "", ""
        if self.weight_decay:
            decay, way = f" and weight_decay = {self.weight_decay}", ", or Recipe.weight_decay"
        return f"with lr = {self.lr}{decay}; lower Recipe.lr{way}"


class UnstatedRecipe(Recipe):
    """The recipe of a problem that was given none: default values that nobody has chosen."""

    @property
    def stated(self) -> bool:
        """Whether a value has been changed since."""
        return self != UnstatedRecipe()


class UnknownStart(dict[str, torch.Tensor]):
    """``Problem.initial`` of a model that is trained, from parameters that nobody kept."""
