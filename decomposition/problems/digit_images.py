"""The 8×8 digits as images, for networks with convolutions."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from decomposition.problems.table import Table


def digit_images(name: str) -> Table:
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
