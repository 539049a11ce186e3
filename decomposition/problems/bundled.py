"""Built-in problems on the data sets that come with scikit-learn.

Every function here takes

- ``seed`` of the split, the initialisation, the noise and the base model's order of examples,
- ``recipe``, the training recipe, in place of the problem's own,
- ``quick``: a smaller network (and fewer examples) for a first look,
- ``variant``: changes to network and data; its ``hidden`` are widths of an MLP or channels of
  convolutions,

some also ``queries``, the number of queries to keep. They raise ProblemError where the seed is
negative, or more is asked for than there is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from decomposition.problem import Problem
from decomposition.problems.networks import ResidualNetwork, check_blocks, cnn, one_width
from decomposition.problems.table import Defaults, Network, Table, problem_of
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

COSINE = Recipe(schedule="cosine")
DIGITS = Defaults(hidden=(64, 32), quick_hidden=(16, 16), activation="gelu", query_fraction=0.1)
BREAST_CANCER = Defaults(hidden=(16, 8), quick_hidden=(8,), activation="gelu", recipe=COSINE)
WINE = Defaults(
    hidden=(16, 8),
    quick_hidden=(8,),
    activation="tanh",
    recipe=replace(COSINE, lr=0.01, batch_size=16),
)
DIABETES = Defaults(
    hidden=(16, 8),
    quick_hidden=(8,),
    activation="gelu",
    recipe=replace(COSINE, lr=0.01, epochs=40),
)
CNN = Defaults(
    hidden=(8, 16),
    quick_hidden=(4, 8),
    activation="gelu",
    recipe=replace(COSINE, lr=0.05, epochs=15),
    query_fraction=0.1,
    quick_examples=600,
)
RESNET = Defaults(
    hidden=(128,),
    quick_hidden=(16,),
    activation="gelu",
    recipe=replace(COSINE, epochs=25),
    query_fraction=0.1,
    queries=10,
    examples=200,
    quick_examples=100,
)
QUICK_RESNET = replace(RESNET, recipe=replace(COSINE, lr=0.1, epochs=40))
"""So few steps of a network without normalisation need to be larger."""
RESNET_BLOCKS, QUICK_RESNET_BLOCKS = 3, 1
CNN_OPTIONS = {
    "hidden": "channels of one to three convolutions, such as 8-16; none for a linear model",
    "queries": "number of queries to keep, up to 180",
}
RESNET_OPTIONS = {
    "hidden": "channels of the last stage, a multiple of 4",
    "blocks": "residual blocks in the last stage",
    "queries": "number of queries to keep, up to 180",
}


def digits(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Handwritten digits of 8×8 pixels, ten classes.

    1,617 training and 180 query digits, MLP 64-64-32-10 with GELU (P = 6,570; ``quick``:
    64-16-16-10, P = 1,482), SGD 0.03, momentum 0.9, batch 32, 20 epochs. One permutation (NumPy's
    default generator at ``seed``) splits the 1,797 digits 90/10; row i of ``train`` is the same
    digit in training, curvature, masks and scores. Inputs are standardised with the training
    rows' mean and standard deviation; pixels that are constant on the training rows become 0.
    """
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    table = Table("digits", images, labels, classes=10, display={"image_shape": [8, 8]})
    return problem_of(table, DIGITS, seed, recipe, variant, quick)


def breast_cancer(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Malignant or benign, from 30 measurements of cell nuclei.

    455 training rows and 114 queries (80/20), MLP 30-16-8-2 with GELU (P = 650; ``quick``:
    30-8-2), SGD 0.03 with a cosine schedule, momentum 0.9, batch 32, 20 epochs: training loss
    about 0.04, query loss 0.06 to 0.2 depending on the split.
    """
    inputs, labels = map(np.asarray, load_breast_cancer(return_X_y=True))
    table = Table("breast_cancer", inputs, labels, classes=2)
    return problem_of(table, BREAST_CANCER, seed, recipe, variant, quick)


def wine(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Which of three cultivars, from 13 chemical measurements; the smallest data set.

    142 training rows and 36 queries (80/20), MLP 13-16-8-3 with tanh (P = 387; ``quick``:
    13-8-3), SGD 0.01 with a cosine schedule, momentum 0.9, batch 16, 20 epochs.
    """
    inputs, labels = map(np.asarray, load_wine(return_X_y=True))
    return problem_of(Table("wine", inputs, labels, classes=3), WINE, seed, recipe, variant, quick)


def diabetes(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
) -> Problem:
    """Disease progression after one year, from ten measurements; a noisy target.

    354 training rows and 88 queries (80/20), MLP 10-16-8-1 with GELU (P = 321; ``quick``:
    10-8-1) and the squared error of the standardised target, SGD 0.01 with a cosine schedule,
    momentum 0.9, batch 32, 40 epochs. Predicting the mean costs 1; the network reaches about 0.43
    on the training rows and 0.5 on the queries, as much as these data allow.
    """
    inputs, target = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    table = Table("diabetes", inputs, target[:, None], classes=None)
    return problem_of(table, DIABETES, seed, recipe, variant, quick)


def digits_cnn(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
    queries: int | None = None,
) -> Problem:
    """Handwritten digits as 8×8 images, through two strided convolutions and a linear layer.

    1,617 training and up to 180 query digits, split as in ``digits``; convolutions of 3×3 with
    stride 2 to 8 and 16 channels with GELU, then 64 features to 10 classes (P = 1,898; ``quick``:
    4 and 8 channels, P = 666, and 600 training digits). SGD 0.05 with a cosine schedule, momentum
    0.9, batch 32, 15 epochs.
    """
    channels = CNN.widths(variant, quick)
    network = Network(
        "-".join(map(str, (1, *channels, 10))),
        lambda activation, seed: cnn(channels, 10, activation, seed),
    )
    table = _digit_images("digits_cnn")
    return problem_of(table, CNN, seed, recipe, variant, quick, network, queries)


def digits_resnet(
    seed: int = 0,
    recipe: Recipe | None = None,
    quick: bool = False,
    variant: Variant | None = None,
    queries: int | None = None,
    blocks: int | None = None,
) -> Problem:
    """Handwritten digits as 8×8 images, through a residual network of a million parameters.

    200 training and 10 query digits (the first of those of ``digits``); ResidualNetwork with
    3 blocks of 128 channels, a multiple of 4, GELU and no normalisation (P = 1,057,162): too
    large for a dense matrix. SGD 0.03 with a cosine schedule, momentum 0.9, batch 32, 25 epochs.
    ``quick``: one block of 16 channels (P = 7,962), 100 training digits, SGD 0.1 for 40 epochs.
    ``blocks`` is the number of residual blocks in the last stage.
    """
    width = one_width("digits_resnet", RESNET.widths(variant, quick), 4)
    blocks = blocks or (QUICK_RESNET_BLOCKS if quick else RESNET_BLOCKS)
    check_blocks("digits_resnet", blocks)
    network = Network(
        f"{blocks} blocks of {width}",
        lambda activation, seed: ResidualNetwork(width, blocks, 10, activation, seed),
    )
    table, defaults = _digit_images("digits_resnet"), QUICK_RESNET if quick else RESNET
    return problem_of(table, defaults, seed, recipe, variant, quick, network, queries)


def _digit_images(name: str) -> Table:
    """1,797 images (1, 8, 8) with grey levels −1 (paper) to 1 (ink), and their digits.

    Not standardised pixel by pixel, as the problem ``digits`` is: a kernel that moves over the
    image needs the same scale everywhere. With one seed and equal fractions, row i is the same
    digit in both.
    """
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    return Table(
        name,
        images.reshape(-1, 1, 8, 8) / 8.0 - 1.0,
        labels,
        classes=10,
        standardise=False,
        display={"image_shape": [8, 8]},
    )
