"""An estimate with its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds; an exact number has all three equal."""

    lower: float
    estimate: float
    upper: float

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return math.isfinite(self.estimate)

    @property
    def exact(self) -> bool:
        """Whether the interval has no width."""
        return self.known and self.lower == self.upper
