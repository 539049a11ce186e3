"""Copies of a model whose matrices are torch.nn.Linear layers, so that they have a Kronecker form.

Attention of PyTorch reads the weights of its projections without calling them, whole recurrent
layers run in fused kernels, and a module of one's own may be a linear map without saying so.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from decomposition.layers.attention import linear_attention
from decomposition.layers.positions import has_kronecker_form, linear
from decomposition.layers.recurrent import linear_recurrence

Maker = Callable[[nn.Module, str, bool], nn.Module | None]
"""(module, its path, whether another module holds its parameters too) → what takes its place."""


def with_linear_layers(model: nn.Module) -> nn.Module:
    """A copy that calls as torch.nn.Linear layers what is such a layer under another name.

    That is torch.nn.MultiheadAttention (``LinearAttention``), LSTM, GRU and RNN, step by step
    (``LinearRecurrence``), their cells (``LinearCell``), and a module of one's own that is the map
    x W + b or x Wᵀ + b of its last dimension, like the ``Conv1D`` of GPT-2: whether it is, is
    tried. The same function, of the same parameters under other names and in another order.
    Modules that a model holds twice are still one. Initialised afresh, recurrent maps are so as
    torch has them, all others as torch.nn.Linear is.

    Raises:
        UnsupportedModelError: attention with ``add_bias_kv`` or ``add_zero_attn``; attention or
            recurrent modules whose parameters another module holds too.
    """
    return _converted(model, linear_attention, linear_recurrence, linear_map)


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
    return _converted(model, linear_attention)


def becomes_linear(part: nn.Module) -> bool:
    """Whether ``with_linear_layers`` has another module for a recurrent one or a map."""
    makers = (linear_recurrence, linear_map)
    return any(make(part, "", False) is not None for make in makers)


def linear_map(part: nn.Module, name: str, tied: bool) -> nn.Linear | None:
    """The layer that a module of one's own is, if it is the map of a matrix and a bias."""
    held = [p for p in part._parameters.values() if p is not None]
    matrices, vectors = ([p for p in held if p.ndim == ndim] for ndim in (2, 1))
    of_its_own = not (tied or part._modules or has_kronecker_form(part))
    if not of_its_own or len(matrices) != 1 or len(vectors) > 1 or len(held) > 2:
        return None
    bias = vectors[0] if vectors else None
    for flip in (False, True):
        with torch.enable_grad():  # the transpose requires a gradient if the matrix does
            weight = matrices[0].T if flip else matrices[0]
        if (bias is None or len(bias) == len(weight)) and _is_map(part, flip):
            return linear(weight, bias)
    return None


def _is_map(part: nn.Module, flip: bool) -> bool:
    """Whether a module has the values and gradients of x Wᵀ + b (x W + b), at other parameters."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    trial = copy.deepcopy(part).cpu().double().requires_grad_()
    theta = [p for p in trial._parameters.values() if p is not None]
    for parameter in theta:
        parameter.data = draw(*parameter.shape)
    (matrix,), bias = ([p for p in theta if p.ndim == ndim] for ndim in (2, 1))
    same = []
    for lead in ((6,), (2, 3)):
        with torch.enable_grad():
            weight = matrix.T if flip else matrix
            x = (10 * draw(*lead, weight.shape[1])).requires_grad_()
            expected = nn.functional.linear(x, weight, *bias)
            try:
                found = trial(x.clone())
            except Exception:  # it takes other inputs
                continue
        same.append(_same(found, expected, (x, *theta), draw(*expected.shape)))
    return bool(same) and all(same)


def _same(found: object, expected: Tensor, of: tuple[Tensor, ...], slope: Tensor) -> bool:
    """Whether values and gradients agree."""
    if not isinstance(found, Tensor) or found.shape != expected.shape or not found.requires_grad:
        return False
    one, other = (
        (z, *torch.autograd.grad(z, of, slope, allow_unused=True, materialize_grads=True))
        for z in (found, expected)
    )
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(one, other, strict=True))


def _converted(model: nn.Module, *makers: Maker) -> nn.Module:
    """A copy in which modules are what the makers have in their place."""
    model = copy.deepcopy(model)
    users = Counter(id(p) for part in model.modules() for p in part._parameters.values())
    made: dict[nn.Module, nn.Module] = {}
    for name, part in model.named_modules():
        if isinstance(part, nn.TransformerEncoder):
            part.use_nested_tensor = False
        tied = any(users[id(p)] > 1 for p in part.parameters())
        for make in makers:
            other = make(part, name or "the model", tied)
            if other is not None:
                made[part] = other
    for part in list(model.modules()):
        for key, child in part._modules.items():
            if child in made:
                part._modules[key] = made[child]
    return made.get(model, model)
