"""A causal transformer on tokens, of parts that torch.func can differentiate twice.

Pre-norm blocks (Xiong et al. 2020, arXiv 2002.04745) with four separate projections in plain
matrix products: every one is an ``nn.Linear`` used once, on as many positions as there are.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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
    """h + attention(norm(h)), then h + down(φ(up(norm(h)))) with 2 · width hidden units."""

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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
