"""What a study varies about a problem: the network, the number of examples, the label noise."""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.checks import Rule, check_fields, number, one_of, optional, several, whole
from decomposition.errors import ProblemError
from decomposition.problems.networks import ACTIVATIONS

RULES: dict[str, Rule] = {
    "hidden": optional(several(whole(1))),
    "activation": optional(one_of(*ACTIVATIONS)),
    "examples": optional(whole(2)),
    "label_noise": number(0),
}
"""What each field of a Variant may be."""


@dataclass(frozen=True)
class Variant:
    """Changes to a problem; the default changes nothing.

    Raises:
        ProblemError: a value of the wrong type or outside its range; the message names it.
    """

    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers, () for a linear model; None: the problem's own."""
    activation: str | None = None
    """tanh, relu, gelu, silu, sigmoid, softplus or identity; None: the problem's own."""
    examples: int | None = None
    """Keep this many training rows, the first of the seeded permutation: smaller sets are nested
    in larger ones. None: all."""
    label_noise: float = 0.0
    """Classification: fraction of the training labels replaced by another class. Regression:
    standard deviation of the noise added to training targets, in those of the target."""

    def __post_init__(self) -> None:
        """Check every value once; a list of widths becomes a tuple."""
        check_fields(self, RULES, ProblemError)


def varied_name(name: str, variant: Variant, network: str, quick: bool) -> str:
    """The name shown in results: the problem's, and what a variant changed.

    Args:
        name: the problem's name.
        variant: the changes.
        network: the network's sizes, such as 64-16-10; shown where the variant has chosen them.
        quick: a smaller network, for a first look.
    """
    parts = [f"{name} (quick)" if quick else name]
    sizes = [network] if variant.hidden is not None else []
    sizes += [variant.activation] if variant.activation else []
    parts += [" ".join(sizes)] if sizes else []
    parts += [f"{variant.examples} examples"] if variant.examples else []
    parts += [f"label noise {variant.label_noise:g}"] if variant.label_noise else []
    return ", ".join(parts)
