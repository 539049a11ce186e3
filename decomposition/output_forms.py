"""What models return in place of outputs (N, C), and how to come by those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

USUAL = ("logits", "outputs", "output", "out", "prediction", "predictions")
"""Names under which outputs go, likeliest first."""


def outputs_way_out(found: object, examples: int) -> str:
    """What to return in place of ``found``, as the end of a message; empty where none is known."""
    if isinstance(found, Tensor):
        return _of_tensor(found, examples)
    ways = {
        way: name
        for name, way, part in _parts(found)
        if isinstance(part, Tensor) and part.ndim >= 2 and len(part) == examples
    }
    if not ways:
        return ""
    place = {name: i for i, name in enumerate(USUAL)}
    best = min(ways, key=lambda way: place.get(ways[way], len(USUAL)))
    return f": pass a module whose forward takes out, the result of this one, and returns {best}"


def _of_tensor(found: Tensor, examples: int) -> str:
    if found.is_complex():
        return ": return real and imaginary parts side by side, torch.view_as_real(out).flatten(1)"
    if not found.is_floating_point():
        return ": return the numbers that it decides by"
    if found.shape == (examples,):
        return ": return them as one column, without the squeeze, or out.unsqueeze(-1)"
    if found.ndim == 0:
        return ": return a row for every example, not their mean or sum"
    return ""


def _parts(found: object) -> Iterator[tuple[str, str, object]]:
    """Name, expression and value of everything that a result holds."""
    if isinstance(found, tuple | list):
        names = getattr(found, "_fields", None)
        for i, part in enumerate(found):
            yield (names[i], f"out.{names[i]}", part) if names else ("", f"out[{i}]", part)
        return
    if isinstance(found, Mapping):  # also those whose keys are attributes
        for name, part in found.items():
            attribute = getattr(found, str(name), None) is part
            yield str(name), f"out.{name}" if attribute else f'out["{name}"]', part
        return
    for name, part in getattr(found, "__dict__", {}).items():
        yield name, f"out.{name}", part
