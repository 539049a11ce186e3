"""Layers of a model: where their parameters lie, and how their outputs are perturbed."""

from decomposition.layers.attention import LinearAttention, with_linear_attention
from decomposition.layers.blocks import Block, ExactBlock, LinearBlock
from decomposition.layers.elementary import ElementaryOperations
from decomposition.layers.find import Layout, find_layout, layers_of
from decomposition.layers.hooks import (
    Perturbation,
    output_hooks,
    output_shapes,
    perturbed_forward,
)
from decomposition.layers.positions import patches, responses

__all__ = [
    "Block",
    "ElementaryOperations",
    "ExactBlock",
    "Layout",
    "LinearAttention",
    "LinearBlock",
    "Perturbation",
    "find_layout",
    "layers_of",
    "output_hooks",
    "output_shapes",
    "patches",
    "perturbed_forward",
    "responses",
    "with_linear_attention",
]
