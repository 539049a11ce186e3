"""Options that every problem's name takes: its variant and its recipe."""

from __future__ import annotations

from dataclasses import fields, replace

from decomposition.problems.network import ACTIVATIONS
from decomposition.problems.options import Spec, counted
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe

VARIANT = {
    "hidden": "widths of the hidden layers, such as 64-32; none for a linear model",
    "activation": ", ".join(ACTIVATIONS),
    "examples": "number of training rows to keep",
    "label_noise": "fraction of wrong training labels; for regression, noise in std of the target",
}
RECIPE = {
    "optimizer": "sgd, adam, adamw",
    "lr": "learning rate",
    "momentum": "momentum of SGD",
    "weight_decay": "weight decay",
    "schedule": "constant, cosine",
    "epochs": "passes over the training rows",
    "batch_size": "examples per step",
}
COMMON = VARIANT | RECIPE
"""Option → meaning."""


def variant_of(spec: Spec, given: Variant | None) -> Variant:
    """The variant that a name asks for; what ``given`` changes itself goes before.

    Raises:
        ProblemError: a value that is none.
    """
    named = Variant(
        hidden=_widths(spec),
        activation=spec.options.get("activation"),
        examples=spec.whole("examples", None, least=2),
        label_noise=spec.number("label_noise", 0.0),
    )
    if given is None:
        return named
    plain = Variant()
    changed = {
        field.name: getattr(given, field.name)
        for field in fields(Variant)
        if getattr(given, field.name) != getattr(plain, field.name)
    }
    return replace(named, **changed)


def recipe_of(spec: Spec, recipe: Recipe) -> Recipe:
    """A recipe with the changes that a name asks for.

    Raises:
        ProblemError: a value that is none, or outside its range.
    """
    changes: dict[str, object] = {}
    for option in spec.options.keys() & RECIPE.keys():
        kind = type(getattr(recipe, option))
        if kind is int:
            changes[option] = spec.whole(option, None)
        elif kind is float:
            changes[option] = spec.number(option, 0.0)
        else:
            changes[option] = spec.options[option]
    return replace(recipe, **changes)  # type: ignore[arg-type]


def _widths(spec: Spec) -> tuple[int, ...] | None:
    text = spec.options.get("hidden")
    if text is None:
        return None
    if text == "none":
        return ()
    widths = [counted(part) for part in text.split("-")]
    if None in widths:
        raise spec.wrong("hidden", "widths such as 64-32, or none")
    return tuple(width for width in widths if width is not None)
