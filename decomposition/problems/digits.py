"""The built-in problem: scikit-learn's bundled 8×8 handwritten digits and a small GELU network."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.recipe import Recipe

QUERY_FRACTION = 0.1


def digits(seed: int = 0, recipe: Recipe | None = None, quick: bool = False) -> Problem:
    """1,617 training and 180 query digits, MLP 64-64-32-10 with GELU (P = 6,570).

    One permutation (NumPy's default generator at ``seed``) splits the 1,797 digits 90/10; row i
    of ``train`` is the same digit in training, curvature, masks and scores. Inputs are
    standardised with the training rows' mean and standard deviation; pixels that are constant on
    the training rows become 0.

    Args:
        seed: seed of the split, the initialisation and the base model's order of examples.
        recipe: training recipe; default SGD 0.03, momentum 0.9, batch 32, 20 epochs.
        quick: a network of 64-16-16-10 (P = 1,482) instead, for a first look.

    Raises:
        ProblemError: the seed is negative.
    """
    if seed < 0:
        raise ProblemError(f"the seed of a problem must be >= 0, got {seed}")
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(seed).permutation(len(images))
    held_out = round(QUERY_FRACTION * len(images))
    query, train = order[:held_out], order[held_out:]
    mean, std = images[train].mean(0), images[train].std(0)
    inputs = (images - mean) / np.where(std > 0, std, 1.0)
    inputs[:, std == 0] = 0.0
    x = torch.as_tensor(inputs, dtype=torch.float32)
    y = torch.as_tensor(labels, dtype=torch.int64)
    return Problem(
        model=mlp((64, 16, 16, 10) if quick else (64, 64, 32, 10), nn.GELU, seed),
        loss=nn.CrossEntropyLoss(),
        train=(x[train], y[train]),
        query=(x[query], y[query]),
        recipe=recipe or Recipe(seed=seed),
        name="digits (quick)" if quick else "digits",
        display={"image_shape": [8, 8]},
    )


def mlp(widths: tuple[int, ...], activation: type[nn.Module], seed: int) -> nn.Sequential:
    """A multilayer perceptron with PyTorch's default initialisation at ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise(widths):
            layers += [nn.Linear(d_in, d_out), activation()]
        return nn.Sequential(*layers[:-1])
