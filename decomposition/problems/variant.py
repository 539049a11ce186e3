"""What a study varies about a problem: the network, the number of examples, the label noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decomposition.errors import ProblemError
from decomposition.problems.network import ACTIVATIONS


@dataclass(frozen=True)
class Variant:
    """Changes to a problem; the default changes nothing.

    Raises:
        ProblemError: a value is outside its range; the message names it.
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
        if self.hidden is not None:
            object.__setattr__(self, "hidden", tuple(self.hidden))
            for width in self.hidden:
                if not _whole(width) or width < 1:
                    raise ProblemError(f"Variant.hidden must be whole widths >= 1, got {width!r}")
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ProblemError(
                f"Variant.activation must be one of {', '.join(ACTIVATIONS)}, got "
                f"{self.activation!r}"
            )
        if self.examples is not None and (not _whole(self.examples) or self.examples < 2):
            raise ProblemError(
                f"Variant.examples must be a whole number >= 2, got {self.examples!r}"
            )
        if not (math.isfinite(self.label_noise) and self.label_noise >= 0):
            raise ProblemError(f"Variant.label_noise must be >= 0, got {self.label_noise}")


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


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
