"""The networks of the built-in problems: multilayer perceptrons, convolutions, a transformer.

All have PyTorch's default initialisation at a seed of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decomposition.errors import ProblemError
from decomposition.resources import free_memory, size_text

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}
"""Activation functions by name."""
MOST_BLOCKS = 1000
BYTES = 32
"""That a parameter takes at the least: itself, a gradient and a momentum, and a copy in double
precision."""


def fitting(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What ``make`` makes, if it fits into memory: it is measured on the device ``meta`` first.

    Raises:
        ProblemError: it has more parameters than memory can hold.
    """
    try:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in make().parameters())
    except RuntimeError:  # a layer of more bytes than an address can count
        size = 2**60
    free = free_memory()
    if BYTES * size > free:
        raise ProblemError(
            f"{name}: a network of this size has {size:,} parameters, whose training takes "
            f"{size_text(BYTES * size)} of memory where {size_text(free)} are free: ask for "
            f"smaller hidden layers or fewer blocks, {free // BYTES:,} parameters in all"
        )
    return make()


def one_width(name: str, widths: tuple[int, ...], multiple: int) -> int:
    """The width of a network whose layers are all as wide.

    Raises:
        ProblemError: there is not one width, or it is no multiple of ``multiple``.
    """
    if len(widths) != 1:
        given = "-".join(map(str, widths)) or "none"
        raise ProblemError(f"{name} takes one width as hidden, such as hidden=16, got {given}")
    if widths[0] % multiple:
        raise ProblemError(f"{name}: hidden must be a multiple of {multiple}, got {widths[0]}")
    return widths[0]


def check_blocks(name: str, blocks: int) -> None:
    """Raise ProblemError if there are more blocks than MOST_BLOCKS."""
    if blocks > MOST_BLOCKS:
        raise ProblemError(f"{name}: blocks must be 1 to {MOST_BLOCKS:,}, got {blocks:,}")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Parameters that are made in the block depend on ``seed`` alone, and change no other draw."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def mlp(widths: tuple[int, ...], activation: type[nn.Module], seed: int) -> nn.Sequential:
    """A multilayer perceptron with PyTorch's default initialisation at ``seed``."""
    with seeded(seed):
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise(widths):
            layers += [nn.Linear(d_in, d_out), activation()]
        return nn.Sequential(*layers[:-1])


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
    with seeded(seed):
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise((1, *channels)):
            layers += [nn.Conv2d(d_in, d_out, 3, stride=2, padding=1), activation()]
        features = (channels[-1] if channels else 1) * side**2
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, outputs))


class ResidualBlock(nn.Module):
    """h + scale · conv(φ(conv(φ(h)))), both convolutions 3×3 with as many channels as h."""

    def __init__(self, channels: int, activation: type[nn.Module], scale: float) -> None:
        """A block of 2 · (9 · channels² + channels) parameters."""
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = activation()
        self.scale = scale

    def forward(self, h: Float[Tensor, "n c s s"]) -> Float[Tensor, "n c s s"]:
        """The shape stays."""
        branch = self.second(self.activation(self.first(self.activation(h))))
        return h + self.scale * branch


class ResidualNetwork(nn.Module):
    """Two stages at half and a quarter of the image's side; most parameters are in the second.

    Batch normalisation in training mode couples the examples of a batch, so that no loss per
    example exists. Residual branches scaled down by 1/√B keep B blocks trainable without it
    (Zhang, Dauphin, Ma 2019, *Fixup initialization*, arXiv 1901.09321; De, Smith 2020, arXiv
    2002.10444).

    A stem of width/4 channels, a convolution of stride 2 to width/2, one residual block there,
    another of stride 2 to ``width``, ``blocks`` residual blocks, and a linear layer on all
    channels and positions.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        outputs: int,
        activation: type[nn.Module],
        seed: int,
        side: int = 8,
    ) -> None:
        """PyTorch's default initialisation at ``seed``; ``width`` and ``side`` divide by 4."""
        super().__init__()
        with seeded(seed):
            scale = (1 + blocks) ** -0.5
            self.stem = nn.Conv2d(1, width // 4, 3, padding=1)
            self.halve = nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1)
            self.early = ResidualBlock(width // 2, activation, scale)
            self.quarter = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
            self.late = nn.Sequential(
                *(ResidualBlock(width, activation, scale) for _ in range(blocks))
            )
            self.activation = activation()
            self.head = nn.Linear(width * (side // 4) ** 2, outputs)

    def forward(self, images: Float[Tensor, "n 1 side side"]) -> Float[Tensor, "n C"]:
        """Class scores."""
        h = self.early(self.halve(self.activation(self.stem(images))))
        h = self.late(self.quarter(self.activation(h)))
        return self.head(self.activation(h).flatten(1))


class Attention(nn.Module):
    """Causal attention with several heads; queries are asked at the last positions only.

    Queries, keys and values have no bias: a key's bias changes no weight of the softmax, and its
    curvature would be zero.
    """

    allowed: Tensor

    def __init__(self, width: int, heads: int, length: int) -> None:
        """``heads`` divides ``width``; at most ``length`` positions."""
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.heads = heads
        self.register_buffer("allowed", torch.ones(length, length, dtype=torch.bool).tril())

    def forward(self, h: Float[Tensor, "n T d"], last: int) -> Float[Tensor, "n last d"]:
        """Σ_s softmax_s(q_t · k_s / √(d / heads)) v_s over s ≤ t, for the ``last`` positions t."""
        split = lambda x: x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.query(h[:, -last:])), split(self.key(h)), split(self.value(h))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        positions = h.shape[1]
        allowed = self.allowed[positions - last : positions, :positions]
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """h + attention(norm(h)), then h + down(φ(up(norm(h)))) with 2 · width hidden units.

    Pre-norm blocks (Xiong et al. 2020, arXiv 2002.04745) with four separate projections in plain
    matrix products, which torch.func can differentiate twice.
    """

    def __init__(self, width: int, heads: int, length: int, activation: type[nn.Module]) -> None:
        """See Attention."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, length)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.activation = activation()
        self.down = nn.Linear(2 * width, width)

    def forward(self, h: Float[Tensor, "n T d"], last: int) -> Float[Tensor, "n last d"]:
        """The ``last`` positions of the block's output."""
        h = h[:, -last:] + self.attention(self.attention_norm(h), last)
        return h + self.down(self.activation(self.up(self.mlp_norm(h))))


class Transformer(nn.Module):
    """Scores of the next token after each of the last ``predictions`` of ``length`` tokens.

    The last block computes these positions alone: the others would change no output, but cost time
    and fill the input factors of K-FAC.
    """

    positions: Tensor

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        blocks: int,
        heads: int,
        activation: type[nn.Module],
        seed: int,
        predictions: int = 1,
    ) -> None:
        """PyTorch's default initialisation at ``seed``."""
        super().__init__()
        self.predictions = predictions
        with seeded(seed):
            self.token = nn.Embedding(vocabulary, width)
            self.position = nn.Embedding(length, width)
            self.blocks = nn.ModuleList(
                TransformerBlock(width, heads, length, activation) for _ in range(blocks)
            )
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary)
        self.register_buffer("positions", torch.arange(length))

    def forward(self, tokens: Int[Tensor, "n T"]) -> Float[Tensor, "n vocabulary *predictions"]:
        """Unnormalised log-probabilities of the next token; (n, vocabulary) of one prediction."""
        h = self.token(tokens) + self.position(self.positions)
        for depth, block in enumerate(self.blocks, 1):
            h = block(h, self.predictions if depth == len(self.blocks) else h.shape[1])
        if self.predictions == 1:
            return self.head(self.norm(h[:, -1]))
        return self.head(self.norm(h)).transpose(1, 2)
