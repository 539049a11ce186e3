"""A small convolutional network: strided convolutions, then one linear layer."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from decomposition.errors import ProblemError


def cnn(
    channels: tuple[int, ...],
    outputs: int,
    activation: type[nn.Module],
    seed: int,
    size: int = 8,
) -> nn.Sequential:
    """Convolutions of 3×3 with stride 2 on (N, 1, size, size) images, and a linear layer.

    Every convolution halves the image, so that the last one sees few positions; the linear layer
    reads its channels at all of them: ``channels[-1] · (size / 2^L)²`` inputs. No pooling and no
    normalisation: a function of one example that has all derivatives where the activation has.

    Args:
        channels: output channels of the convolutions, () for a linear model.
        outputs: C.
        activation: follows every convolution.
        seed: of PyTorch's default initialisation.
        size: side of the images.

    Raises:
        ProblemError: more convolutions than the image can be halved.
    """
    side = size >> len(channels)
    if side < 1:
        raise ProblemError(
            f"a {size}×{size} image can be halved {size.bit_length() - 1} times, but "
            f"hidden={'-'.join(map(str, channels))} asks for {len(channels)} convolutions"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise((1, *channels)):
            layers += [nn.Conv2d(d_in, d_out, 3, stride=2, padding=1), activation()]
        features = (channels[-1] if channels else 1) * side**2
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, outputs))
