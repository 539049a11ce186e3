"""Layers of a model: where their parameters lie, and how their outputs are perturbed."""

from decomposition.elementary import ElementaryOperations
from decomposition.layers.attention import LinearAttention
from decomposition.layers.blocks import Block, ExactBlock, LinearBlock
from decomposition.layers.convert import with_linear_attention, with_linear_layers
from decomposition.layers.find import Layout, find_layout, layers_of
from decomposition.layers.hooks import (
    Perturbation,
    Traced,
    output_hooks,
    perturbed_forward,
    traced_forward,
)
from decomposition.layers.positions import patches, responses
from decomposition.layers.recurrent import LinearCell, LinearRecurrence

__all__ = [
    "Block",
    "ElementaryOperations",
    "ExactBlock",
    "Layout",
    "LinearAttention",
    "LinearBlock",
    "LinearCell",
    "LinearRecurrence",
    "Perturbation",
    "Traced",
    "find_layout",
    "layers_of",
    "output_hooks",
    "patches",
    "perturbed_forward",
    "responses",
    "traced_forward",
    "with_linear_attention",
    "with_linear_layers",
]
