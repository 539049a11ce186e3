"""Attention whose projections are layers that are called, so that they have a Kronecker form.

``torch.nn.MultiheadAttention`` reads the weights of its four projections and calls none of them;
its fused kernels have no second derivative, and no rule for ``torch.func.vmap``. The same function
of ``torch.nn.Linear`` layers and plain products has all of these.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.errors import UnsupportedModelError


def with_linear_attention(model: nn.Module) -> nn.Module:
    """A copy in which every torch.nn.MultiheadAttention is a ``LinearAttention``.

    The same function, of the same parameters under other names and in another order: rows of
    ``in_proj_weight`` become ``query.weight``, ``key.weight`` and ``value.weight``, ``out_proj``
    becomes ``out``. Modules that a model holds twice are still one. ``torch.nn.TransformerEncoder``
    no longer takes its path of nested tensors, on which, without gradients, outputs at padded
    positions are zero. Initialised afresh, the projections are so as torch.nn.Linear is.

    Raises:
        UnsupportedModelError: attention with ``add_bias_kv`` or ``add_zero_attn``, or whose
            parameters another module holds too.
    """
    model = copy.deepcopy(model)
    users = Counter(id(p) for part in model.modules() for p in part._parameters.values())
    made: dict[nn.Module, LinearAttention] = {}
    for name, part in model.named_modules():
        if isinstance(part, nn.TransformerEncoder):
            part.use_nested_tensor = False
        elif type(part) is nn.MultiheadAttention:  # a subclass may be another function
            where = f"{name or 'the model'} is attention"
            if part.bias_k is not None or part.add_zero_attn:
                raise UnsupportedModelError(
                    f"{where} with add_bias_kv or add_zero_attn, which has no form in "
                    "torch.nn.Linear layers alone: build it without"
                )
            if any(users[id(p)] > 1 for p in part.parameters()):
                raise UnsupportedModelError(
                    f"{where} whose parameters another module holds too: its projections would "
                    "not be tied any longer; share the module, or untie them"
                )
            made[part] = LinearAttention(part)
    for part in list(model.modules()):
        for key, child in part._modules.items():
            if child in made:
                part._modules[key] = made[child]
    return made.get(model, model)


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
            _linear(w, b) for w, b in zip(weights, biases, strict=True)
        )
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)
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


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer with copies of these parameters, frozen if they are."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(layer, name, nn.Parameter(value.detach().clone(), value.requires_grad))
    return layer
