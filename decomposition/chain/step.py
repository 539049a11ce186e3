"""A step: one change of an approximation, from one rung to the next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step of a chain, from one node to the next."""

    name: str
    before: str
    after: str
