"""``mnist_mlp``: the field's standard small benchmark, a perceptron on 28×28 digits.

The images are read from MNIST's four files where their folder is given. Without, they are a
stand-in of the same shape and scale, and the problem's name says so: digits of scikit-learn's 8×8
set, enlarged to the 20×20 pixels that MNIST's take, turned, sheared, stretched and shifted. The
drawings that queries are made of are in no training image.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from decomposition.problem import Problem
from decomposition.problems import idx
from decomposition.problems.options import Spec
from decomposition.problems.table import Table, problem_of
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

MNIST = replace(idx.DEFAULTS, hidden=(128,), quick_hidden=(16,), activation="relu")
OPTIONS = {
    "folder": "where MNIST's four files lie, plain or .gz; without it images are a stand-in",
    "queries": "number of queries to keep",
}
MEAN, STD = 0.1307, 0.3081
"""Of MNIST's pixels, black 0 and white 1: the scale that is usual for it."""
SIDE, DRAWN = 28, 20
"""Pixels of an image, and of the box that holds its digit."""
STAND_INS = (6000, 1000)
"""Training images and queries of the stand-in, of which a problem keeps some."""
DRAWINGS_OF_QUERIES = 300
TURN, SHEAR, STRETCH, SHIFT = 0.2, 0.2, 0.15, 2.0
"""Largest angle and shear in radians, part of the size, and pixels."""
CONTRAST = 1.6
"""Strokes are as white as MNIST's."""


def mnist_mlp(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
    queries: int | None = None,
    folder: str | None = None,
) -> Problem:
    """Handwritten digits of 28×28 pixels: MNIST's where ``folder`` holds them, else a stand-in.

    5,000 training images and 500 queries, MLP 784-128-10 with ReLU (P = 101,770; ``quick``:
    784-16-10, P = 12,730, and 1,000 training images), SGD 0.03 with a cosine schedule, momentum
    0.9, batch 32, 20 epochs. Pixels are 0 to 1, minus 0.1307, over 0.3081.
    """
    table = _stand_in() if folder is None else _from_files(folder)
    return problem_of(table, MNIST, seed, recipe, variant, quick, None, queries)


def _from_files(folder: str) -> Table:
    table = idx.idx_table(Spec(folder, f"idx:{folder}", {}), folder)
    assert table.held_out is not None
    pixels, labels = table.held_out
    return replace(
        table,
        name="mnist_mlp",
        inputs=_scaled(table.inputs),
        held_out=(_scaled(pixels), labels),
        standardise=False,
    )


def _scaled(pixels: np.ndarray) -> Float[np.ndarray, "n d"]:
    return (pixels / 255.0 - MEAN) / STD


def _stand_in() -> Table:
    inputs, labels, pixels, query_labels = stand_in_images()
    return Table(
        "mnist_mlp (stand-in)",
        _scaled(inputs),
        labels,
        classes=10,
        held_out=(_scaled(pixels), query_labels),
        standardise=False,
        display={"image_shape": [SIDE, SIDE]},
    )


Images = tuple[
    Float[np.ndarray, "n 784"], Int[np.ndarray, " n"], Float[np.ndarray, "q 784"], np.ndarray
]


@cache
def stand_in_images() -> Images:
    """Grey levels 0 to 255 and digits of the stand-in: training images, then queries."""
    drawings, digits = map(np.asarray, load_digits(return_X_y=True))
    generator = np.random.default_rng(0)
    order = generator.permutation(len(drawings))
    found: list[np.ndarray] = []
    kinds = (order[DRAWINGS_OF_QUERIES:], order[:DRAWINGS_OF_QUERIES])
    for count, kind in zip(STAND_INS, kinds, strict=True):
        chosen = generator.choice(kind, count)
        drawing = torch.from_numpy(drawings[chosen] / 16.0).view(-1, 1, 8, 8)
        found += [_deformed(drawing, _maps(generator, count)), digits[chosen]]
    return found[0], found[1], found[2], found[3]


def _maps(generator: np.random.Generator, count: int) -> Float[Tensor, "n 2 3"]:
    """From places in the image, −1 to 1, to places in the drawing."""
    angle, shear, *_ = draws = generator.uniform(-1.0, 1.0, (6, count))
    cos, sin = np.cos(TURN * angle), np.sin(TURN * angle)
    turn = np.stack([np.stack([cos, -sin]), np.stack([sin, cos])])
    slant = np.array([[1.0, 0.0], [0.0, 1.0]])[:, :, None] * np.ones(count)
    slant[0, 1] = np.tan(SHEAR * shear)
    scale = SIDE / DRAWN * (1.0 + STRETCH * draws[2:4])
    linear = np.einsum("ijn,jkn->nik", slant, turn) * scale.T[:, :, None]
    shift = (2.0 * SHIFT / SIDE * draws[4:6]).T[:, :, None]
    return torch.from_numpy(np.concatenate([linear, shift], 2))


def _deformed(
    drawing: Float[Tensor, "n 1 8 8"], maps: Float[Tensor, "n 2 3"]
) -> Float[np.ndarray, "n 784"]:
    grid = affine_grid(maps, [len(drawing), 1, SIDE, SIDE], align_corners=False)
    found = grid_sample(drawing, grid, mode="bicubic", align_corners=False)
    grey = ((found - 0.5) * CONTRAST + 0.5).clamp(0.0, 1.0) * 255.0
    return grey.round().flatten(1).numpy()
