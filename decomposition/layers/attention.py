"""Attention whose projections are layers that are called, so that they have a Kronecker form.

``torch.nn.MultiheadAttention`` reads the weights of its four projections and calls none of them;
its fused kernels have no second derivative, and no rule for ``torch.func.vmap``. The same function
of ``torch.nn.Linear`` layers and plain products has all of these.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError
from decomposition.layers.positions import linear


def linear_attention(part: nn.Module, name: str, tied: bool) -> LinearAttention | None:
    """What takes the place of a torch.nn.MultiheadAttention; nothing for other modules.

    Raises:
        UnsupportedModelError: it has ``add_bias_kv`` or ``add_zero_attn``, or its parameters are
            tied.
    """
    if type(part) is not nn.MultiheadAttention:  # a subclass may be another function
        return None
    where = f"{name} is attention"
    if part.bias_k is not None or part.add_zero_attn:
        raise UnsupportedModelError(
            f"{where} with add_bias_kv or add_zero_attn, which has no form in "
            "torch.nn.Linear layers alone: build it without"
        )
    if tied:
        raise UnsupportedModelError(
            f"{where} whose parameters another module holds too: its projections would "
            "not be tied any longer; share the module, or untie them"
        )
    return LinearAttention(part)


class LinearAttention(nn.Module):
    """softmax(Q Kᵀ / √d + mask) V by heads, as torch.nn.MultiheadAttention has it."""

    in_proj_bias = None
    """What torch.nn.TransformerEncoderLayer asks for before it takes its fused path."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take over an attention's parameters, copied, and its options."""
        super().__init__()
        self.num_heads, self.batch_first = attention.num_heads, attention.batch_first
        whole, bias = attention.in_proj_weight, attention.in_proj_bias
        with torch.enable_grad():  # rows require a gradient if the whole does
            weights = (
                (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
                if whole is None
                else whole.chunk(3)
            )
            biases = (None,) * 3 if bias is None else bias.chunk(3)
        self.query, self.key, self.value = (
            linear(w, b) for w, b in zip(weights, biases, strict=True)
        )
        self.out = linear(attention.out_proj.weight, attention.out_proj.bias)
        self.dropout = nn.Dropout(attention.dropout)
        self.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs in the layout of the queries, and the weights if they are asked for.

        Masks are boolean, True for what is not to be seen, or are added to the scores. A query
        that sees nothing gets zeros. With ``batch_first=False`` examples come second, and first
        again where the projections are called. ``is_causal`` says what ``attn_mask`` is.

        Raises:
            UnsupportedModelError: ``is_causal`` without ``attn_mask``.
        """
        if is_causal and attn_mask is None:
            raise UnsupportedModelError("attention with is_causal=True needs its attn_mask")
        alone, turned = query.ndim == 2, query.ndim == 3 and not self.batch_first
        if alone:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif turned:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        q, k, v = (
            layer(part).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, part in ((self.query, query), (self.key, key), (self.value, value))
        )
        weights = self.dropout(_weights(q, k, attn_mask, key_padding_mask))
        h = self.out((weights @ v).transpose(1, 2).flatten(2))
        h = h[0] if alone else h.transpose(0, 1) if turned else h
        if not need_weights:
            return h, None
        weights = weights.mean(1) if average_attn_weights else weights
        return h, weights[0] if alone else weights


def _weights(
    q: Float[Tensor, "n heads L d"],
    k: Float[Tensor, "n heads S d"],
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
) -> Float[Tensor, "n heads L S"]:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if attn_mask is not None:
        by_head = attn_mask.ndim == 3  # (n · heads, L, S)
        mask = _added(attn_mask, scores)
        scores = scores + (mask.view(scores.shape) if by_head else mask)
    if key_padding_mask is not None:
        scores = scores + _added(key_padding_mask, scores)[:, None, None]
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)


def _added(mask: Tensor, scores: Tensor) -> Tensor:
    """A mask as what is added to the scores."""
    if mask.dtype == torch.bool:
        mask = torch.where(mask, -torch.inf, 0.0)
    return mask.to(scores)
